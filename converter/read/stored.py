"""Where a tensor's bytes lie: the one type that adapters and bases of both formats share."""

from dataclasses import dataclass
from math import prod
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file. ``shape`` is row-major, Hugging Face's order; ``dtype`` is safetensors' or GGML's name."""

    path: Path
    offset: int
    nbytes: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def n_elements(self) -> int:
        """How many elements the tensor has."""
        return prod(self.shape)
