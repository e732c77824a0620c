"""Weights of a GGUF, block of rows by block of rows, as float64. Split files are read as one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Final

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize

from converter.derive.base_model import BaseModel
from converter.read.gguf_header import GgufHeader, GgufTensor

# Values in float64 at a time, 8 MB: a comparison holds about ten such arrays.
_BLOCK_VALUES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Weights:
    """One tensor and the file it lies in."""

    path: Path
    tensor: GgufTensor

    @property
    def n_rows(self) -> int:
        """Rows of a matrix, or of all experts' matrices one below the other; elements of a vector."""
        return prod(self.tensor.shape[:-1]) if len(self.tensor.shape) > 1 else self.tensor.shape[0]

    def as_vector(self) -> "Weights":
        """The tensor with its numbers in one row."""
        return Weights(self.path, self.tensor._replace(shape=(prod(self.tensor.shape),)))

    def blocks(self) -> Iterator[slice]:
        """Row ranges that cover the tensor, each small enough for float64."""
        n_columns = self.tensor.shape[-1] if len(self.tensor.shape) > 1 else 1
        step = max(1, _BLOCK_VALUES // n_columns)
        for begin in range(0, self.n_rows, step):
            yield slice(begin, min(begin + step, self.n_rows))

    def stored(self, rows: slice) -> np.ndarray:
        """The bytes of some rows, as they lie in the file."""
        row_nbytes = self.tensor.nbytes // self.n_rows
        offset, n = self.tensor.offset + rows.start * row_nbytes, (rows.stop - rows.start) * row_nbytes
        return np.fromfile(self.path, np.uint8, n, offset=offset)

    def slab(self, e: int) -> "Weights":
        """One matrix of a stack."""
        n, *shape = self.tensor.shape
        nbytes = self.tensor.nbytes // n
        slab = self.tensor._replace(shape=tuple(shape), offset=self.tensor.offset + e * nbytes, nbytes=nbytes)
        return Weights(self.path, slab)

    def some_rows(self, rows: slice) -> "Weights":
        """A matrix of some rows."""
        n = rows.stop - rows.start
        row_nbytes = self.tensor.nbytes // self.n_rows
        offset = self.tensor.offset + rows.start * row_nbytes
        shape = (n, *self.tensor.shape[1:])
        return Weights(self.path, self.tensor._replace(shape=shape, offset=offset, nbytes=n * row_nbytes))

    def values(self, rows: slice) -> np.ndarray:
        """Some rows in float64: (n_rows, n_columns), of a vector (n_rows,)."""
        return self.float32(rows).astype(np.float64)

    def float32(self, rows: slice) -> np.ndarray:
        """Some rows in float32, which holds what any type but F64 does: (n_rows, n_columns), of a vector (n_rows,)."""
        stored = self.stored(rows).reshape(rows.stop - rows.start, -1)
        values: np.ndarray = dequantize(stored, GGMLQuantizationType(self.tensor.type.id))
        n_columns = self.tensor.shape[-1:] if len(self.tensor.shape) > 1 else ()
        return values.reshape(-1, *n_columns)

    def is_identical(self, other: "Weights") -> bool:
        """Whether two tensors agree in type, shape and every byte."""
        if (self.tensor.type, self.tensor.shape) != (other.tensor.type, other.tensor.shape):
            return False
        return all(np.array_equal(self.stored(rows), other.stored(rows)) for rows in self.blocks())


def weights_of(model: BaseModel) -> Mapping[str, Weights]:
    """Every tensor of a GGUF model by its GGUF name."""
    return {name: weights for shard in model.shards for name, weights in weights_in(shard).items()}


def weights_in(header: GgufHeader) -> Mapping[str, Weights]:
    """Every tensor of one GGUF file by its name."""
    return {tensor.name: Weights(header.path, tensor) for tensor in header.tensors}
