"""Where a tensor's bytes lie: the one type that adapters and bases of both formats share."""

from math import prod
from pathlib import Path
from typing import Final, NamedTuple

from converter.read.files import read_bytes

_BLOCK_NBYTES: Final = 1 << 20


class StoredTensor(NamedTuple):
    """A tensor in a file. ``shape`` is row-major, Hugging Face's order; ``dtype`` is safetensors' or GGML's name.

    Of a ``transposed`` matrix the file has the columns one after the other.
    """

    path: Path
    offset: int
    nbytes: int
    shape: tuple[int, ...]
    dtype: str
    transposed: bool = False

    @property
    def n_elements(self) -> int:
        """How many elements the tensor has."""
        return prod(self.shape)

    def holds_the_bytes_of(self, other: "StoredTensor") -> bool:
        """Whether both are one tensor, by shape, type and every byte; it ends at the first block that differs.

        Raises ConverterError where a file can't be read any more.
        """
        if self[2:] != other[2:]:
            return False
        blocks = ((at, min(_BLOCK_NBYTES, self.nbytes - at)) for at in range(0, self.nbytes, _BLOCK_NBYTES))
        return all(
            read_bytes(self.path, self.offset + at, n) == read_bytes(other.path, other.offset + at, n)
            for at, n in blocks
        )

    def part(self, begin: int, n: int) -> "StoredTensor":
        """``n`` rows from ``begin`` on, which lie in one piece."""
        nbytes = self.nbytes // self.shape[0]
        return self._replace(offset=self.offset + begin * nbytes, nbytes=n * nbytes, shape=(n, *self.shape[1:]))

    def turned(self) -> "StoredTensor":
        """The matrix turned round: of the same bytes."""
        return self._replace(shape=self.shape[::-1], transposed=not self.transposed)

    def slab(self, i: int) -> "StoredTensor":
        """Part ``i`` along the first dimension, which lies in one piece."""
        nbytes = self.nbytes // self.shape[0]
        return StoredTensor(self.path, self.offset + i * nbytes, nbytes, self.shape[1:], self.dtype)

    def slabs(self, n: int) -> "StoredTensor":
        """The same bytes as ``n`` parts of equally many rows, along a new first dimension."""
        return self._replace(shape=(n, self.shape[0] // n, *self.shape[1:]))
