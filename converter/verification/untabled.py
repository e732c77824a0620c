"""The places of a merged model whose architecture has no table: those that its base and a checkpoint have in common."""

from dataclasses import replace
from pathlib import Path

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.untabled import with_checkpoint
from converter.errors import ConverterError
from converter.matching.matched import matched


def with_places(model: BaseModel, base: Path | None, checkpoint: Path, adapter: Adapter) -> BaseModel:
    """``model`` with the places of what the adapter touches; as it is where there is a table.

    ``base`` is the GGUF that it was made from, ``checkpoint`` what PEFT gets.

    Raises ConverterError where the two are not at hand, or don't tell.
    """
    if model.architecture:
        return model
    if base is None or checkpoint.is_file():
        raise ConverterError(
            f"{model.path}: {model.model_type} has no table here, so its tensors are found by comparing: give the GGUF "
            "that it was made from as --base-gguf, and the Hugging Face directory of that as --base"
        )
    found = matched(adapter, with_checkpoint(read_base_model(base), checkpoint))
    for module, why in found.match.missing.items() if found.match else ():
        raise ConverterError(f"{base}: {module} {why}")
    return replace(found, path=model.path, shards=model.shards, stems=model.stems, tied=model.tied, tensors={})
