"""Where a tensor's bytes lie: the one type that adapters and bases of both formats share."""

from math import prod
from pathlib import Path
from typing import NamedTuple


class StoredTensor(NamedTuple):
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

    def slab(self, i: int) -> "StoredTensor":
        """Part ``i`` along the first dimension, which lies in one piece."""
        nbytes = self.nbytes // self.shape[0]
        return StoredTensor(self.path, self.offset + i * nbytes, nbytes, self.shape[1:], self.dtype)

    def slabs(self, n: int) -> "StoredTensor":
        """The same bytes as ``n`` parts of equally many rows, along a new first dimension."""
        return self._replace(shape=(n, self.shape[0] // n, *self.shape[1:]))
