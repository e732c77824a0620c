"""Where the weights of a Hugging Face base may lie: in safetensors beside its config.json, and nowhere else.

transformers would take a pickle too, and any file that config.json names (_get_resolved_checkpoint_files in
transformers/modeling_utils.py): what is loaded for a proof or a training is what is judged and converted, or nothing.
"""

from pathlib import Path
from typing import Final

from converter.errors import ConverterError
from converter.read.base_files import HuggingfaceFiles, read_base_files
from converter.read.checkpoint import pickles

WEIGHTS_NAME: Final = "model.safetensors"
_NAMED: Final = (None, WEIGHTS_NAME, f"{WEIGHTS_NAME}.index.json")


def refuse_other_weights(base: Path) -> None:
    """Raise ConverterError where a loader would read anything else than the safetensors that are judged here."""
    files = read_base_files(base)
    if not isinstance(files, HuggingfaceFiles):
        return
    named = files.config.get("transformers_weights")
    if named not in _NAMED:
        raise ConverterError(
            f"{base / 'config.json'}: transformers_weights: found {named!r}, wanted none or {WEIGHTS_NAME}"
        )
    for other in (header.path for header in files.headers if header.path.suffix != ".safetensors"):
        raise ConverterError(f"{other}: is a shard of the base, wanted one that is called .safetensors")
    pickle = None if files.headers else next(pickles(base), None)
    if pickle:
        raise ConverterError(
            f"{pickle}: is a pickle, which can run code when it is loaded, and is not opened; wanted {WEIGHTS_NAME} "
            "(load the model where you trust it, and save it with save_pretrained)"
        )
