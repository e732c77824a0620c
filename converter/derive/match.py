"""What comparing a GGUF with its checkpoint found (converter/matching), in the form of a table's places."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from converter.architectures import Place
from converter.derive.base_model import BaseModel, read_base_model
from converter.errors import ConverterError


class MatchedTensor(NamedTuple):
    """A GGUF tensor that has the numbers of a checkpoint's parameter, and how it keeps them, for people."""

    tensor: str
    parameter: str
    how: str


class Match(NamedTuple):
    """The ``places`` of the modules that an adapter touches, and why others weren't found (``missing``).

    ``alike`` are the checkpoint's modules that are called like touched ones of other layers.
    """

    places: Mapping[str, tuple[Place, ...]]
    missing: Mapping[str, str]
    tensors: tuple[MatchedTensor, ...]
    alike: tuple[str, ...]


def with_checkpoint(base: BaseModel, directory: Path) -> BaseModel:
    """A GGUF without a table, beside the directory that it was made from. Raises ConverterError, status 2, else."""
    if base.format != "gguf":
        raise ConverterError(f"{base.path}: --checkpoint goes with a GGUF as --base; this is a Hugging Face directory")
    if base.architecture:
        raise ConverterError(f"{base.path}: {base.model_type} has a table, which needs no --checkpoint: leave it out")
    checkpoint = read_base_model(directory)
    if checkpoint.format != "huggingface" or not checkpoint.tensors or checkpoint.quantization:
        wanted = "wanted the Hugging Face directory that the GGUF was made from, with safetensors in F32, F16 or BF16"
        raise ConverterError(f"{directory}: --checkpoint: {wanted}")
    return replace(base, checkpoint=checkpoint)
