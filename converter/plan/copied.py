"""What goes from a GGUF base to the output as it is: tensor bytes and metadata entries."""

from dataclasses import replace
from pathlib import Path

from converter.plan.conversion_plan import CopiedBytes, CopiedKeyValue, NewKeyValue, PlannedKeyValue, PlannedTensor
from converter.read.base_model import BaseModel
from converter.read.gguf_header import GgufTensor
from converter.read.stored import StoredTensor


def stored(tensor: GgufTensor, path: Path) -> StoredTensor:
    """Where a GGUF tensor's bytes lie."""
    return StoredTensor(path, tensor.offset, tensor.nbytes, tensor.shape, tensor.type.name)


def first_rows(tensor: GgufTensor, n: int) -> GgufTensor:
    """A matrix of at most ``n`` rows; a row is a whole number of blocks."""
    shape = (min(n, tensor.shape[0]), *tensor.shape[1:])
    return replace(tensor, shape=shape, nbytes=tensor.type.nbytes(shape))


def copied_tensor(name: str, tensor: GgufTensor, path: Path) -> PlannedTensor:
    """A tensor of the base under ``name``, byte for byte."""
    return PlannedTensor(name, tensor.shape, tensor.type, CopiedBytes(tensor.name, stored(tensor, path)))


def copied_key_values(base: BaseModel) -> tuple[PlannedKeyValue, ...]:
    """The base's metadata; what says "one of several split files" stays behind, for the output is one file.

    A base with replicated layers has another number of them.
    """
    first = base.shards[0]
    entries = (entry for entry in first.key_values if not entry.key.startswith("split."))
    n_layers = NewKeyValue(f"{base.model_type}.block_count", base.dims["n_layer"])
    return tuple(
        n_layers if base.layers and entry.key == n_layers.key else CopiedKeyValue(first.path, entry)
        for entry in entries
    )
