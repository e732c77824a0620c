"""What goes from a GGUF base to the output as it is: tensor bytes and metadata entries."""

from pathlib import Path

from converter.plan.conversion_plan import CopiedBytes, CopiedKeyValue, PlannedTensor
from converter.read.base_model import BaseModel
from converter.read.gguf_header import GgufTensor
from converter.read.stored import StoredTensor


def stored(tensor: GgufTensor, path: Path) -> StoredTensor:
    """Where a GGUF tensor's bytes lie."""
    return StoredTensor(path, tensor.offset, tensor.nbytes, tensor.shape, tensor.type.name)


def copied_tensor(name: str, tensor: GgufTensor, path: Path) -> PlannedTensor:
    """A tensor of the base under ``name``, byte for byte."""
    return PlannedTensor(name, tensor.shape, tensor.type, CopiedBytes(tensor.name, stored(tensor, path)))


def copied_key_values(base: BaseModel) -> tuple[CopiedKeyValue, ...]:
    """The base's metadata; what says "one of several split files" stays behind, for the output is one file."""
    first = base.shards[0]
    return tuple(CopiedKeyValue(first.path, e) for e in first.key_values if not e.key.startswith("split."))
