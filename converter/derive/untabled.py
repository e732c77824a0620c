"""A GGUF of an architecture without a table, beside the directory that it was made from."""

from dataclasses import replace
from pathlib import Path

from converter.derive.base_model import BaseModel, read_base_model
from converter.errors import ConverterError


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
