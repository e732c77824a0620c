"""Matrices that are compared: of a checkpoint exactly, of a GGUF as far as its type tells.

A float type holds a number rounded once (IEEE, ties to even): both have to be the same number. A block type rounds to
steps, of which the largest number of a block has half as many as the type has levels. A number is off by at most one of
them: by 0.94 in Q4_0, 0.5 in Q6_K and Q8_0, 0.64 to 0.77 in Q2_K to Q5_K, measured on real weights and on normally and
t-distributed ones (libgguf 0.2.2).
"""

from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from converter.dtypes import GGML_BY_NAME
from converter.evaluation.rows import count, stored_values
from converter.read.stored import StoredTensor
from converter.sources import JoinedRows, Rows, StoredColumns, StoredRows, shape_of
from converter.values.orders import Indices
from converter.values.rows import FLOAT_DTYPES, Array, read_rows

Floats = npt.NDArray[np.float32]
MOST_HELD: Final = 1 << 26  # elements of a matrix that is held whole: 256 MB in float32
_AT_ONCE: Final = 1 << 20  # elements that are compared at a time

# How many levels a block has. MXFP4's are not alike: between its largest two lies a third of the largest.
_LEVELS: Final = {
    "Q8_0": 254, "Q6_K": 63, "Q5_0": 31, "Q5_1": 31, "Q5_K": 31, "Q4_0": 15, "Q4_1": 15, "Q4_K": 15, "IQ4_NL": 15,
    "IQ4_XS": 15, "MXFP4": 5, "Q3_K": 7, "IQ3_S": 7, "IQ3_XXS": 7, "Q2_K": 3, "IQ2_S": 3, "IQ2_XS": 3, "IQ2_XXS": 3,
}  # fmt: skip
_SMALLEST_SCALE: Final = 2.0**-24  # of a block, in F16: what is smaller becomes zero


class Cells(NamedTuple):
    """Some of a GGUF's numbers, and how far what they were rounded from may be from each."""

    values: Floats
    bounds: Floats | None  # None where it is to be the same number, rounded to ``dtype``
    dtype: np.dtype[np.generic] | None = None

    def take(self, index: tuple[slice | Indices | int, ...]) -> "Cells":
        """Those at an index."""
        return Cells(self.values[index], None if self.bounds is None else self.bounds[index], self.dtype)

    def turned(self) -> "Cells":
        """The same, turned round."""
        return Cells(self.values.T, None if self.bounds is None else self.bounds.T, self.dtype)

    def agree(self, wanted: Floats) -> npt.NDArray[np.bool_]:
        """Which of the numbers may have been rounded from those that are ``wanted``; both are broadcast."""
        if self.bounds is None:
            return np.asarray(rounded(wanted, self.dtype) == self.values)
        return np.asarray(np.abs(wanted - self.values) <= self.bounds)


def rounded(values: Floats, dtype: np.dtype[np.generic] | None) -> Floats:
    """The numbers once they are stored as a float type; None is F32."""
    return values if dtype is None else values.astype(dtype).astype(np.float32)


class Grid:
    """A matrix of a GGUF. ``is_turned``: its columns as rows."""

    def __init__(self, tensor: StoredTensor, *, is_turned: bool = False) -> None:
        self._tensor, self._is_turned = tensor, is_turned
        self.shape: tuple[int, int] = tensor.shape[::-1] if is_turned else tensor.shape  # type: ignore[assignment]  # two

    def turned(self) -> "Grid":
        """The same, turned round."""
        return Grid(self._tensor, is_turned=not self._is_turned)

    def first(self, n: int) -> "Grid":
        """The first rows of one that isn't turned round."""
        return Grid(self._tensor.part(0, n))

    @property
    def is_known(self) -> bool:
        """Whether it is of a type whose rounding is known."""
        return self._tensor.dtype in _LEVELS or self.is_float

    @property
    def is_float(self) -> bool:
        """Whether it keeps each number by itself."""
        return self._tensor.dtype in FLOAT_DTYPES

    @property
    def dtype(self) -> np.dtype[np.generic] | None:
        """The type that a number is rounded to; None is F32, or a type of blocks."""
        return None if self._tensor.dtype == "F32" else FLOAT_DTYPES.get(self._tensor.dtype)

    def rows(self, begin: int, end: int) -> Cells:
        """Rows ``begin`` to ``end``."""
        if self._is_turned:
            return self.whole.take((slice(begin, end),))
        return self._cells(begin, end)

    @cached_property
    def whole(self) -> Cells:
        """All of it."""
        cells = self._cells(0, self._tensor.shape[0])
        return cells.turned() if self._is_turned else cells

    def _cells(self, begin: int, end: int) -> Cells:
        stored = read_rows(self._tensor, begin, end)
        values = stored.astype(np.float32, copy=False)
        if self.is_float:
            return Cells(values, None, self.dtype)
        size = GGML_BY_NAME[self._tensor.dtype].block_size
        largest = np.abs(values).reshape(-1, size).max(axis=1)
        levels = _LEVELS[self._tensor.dtype]
        bounds = 2 / levels * largest + levels * _SMALLEST_SCALE
        return Cells(values, np.repeat(bounds, size).reshape(values.shape).astype(np.float32))


class Sheet:
    """A matrix of a checkpoint. ``is_turned``: its columns as rows."""

    def __init__(self, source: Rows, *, is_turned: bool = False) -> None:
        self._source, self._is_turned = source, is_turned
        shape = shape_of(source)
        self.shape: tuple[int, int] = shape[::-1] if is_turned else shape  # type: ignore[assignment]  # two

    @property
    def n_elements(self) -> int:
        """How many numbers it has."""
        return self.shape[0] * self.shape[1]

    def turned(self) -> "Sheet":
        """The same, turned round."""
        return Sheet(self._source, is_turned=not self._is_turned)

    def first(self, n: int) -> "Sheet":
        """The first rows of one that isn't turned round."""
        source = self._source.parts[0] if isinstance(self._source, JoinedRows) else self._source
        if not isinstance(source, StoredRows):
            return self
        return Sheet(source._replace(tensor=source.tensor.part(0, min(n, source.tensor.shape[0]))))

    def rows(self, begin: int, end: int) -> Floats:
        """Rows ``begin`` to ``end``: in float32, which is what F64 is rounded to first by llama.cpp's converter."""
        if self._is_turned or "whole" in self.__dict__:
            return self.whole[begin:end]
        return _numbers(self._source, begin, end)

    def take(self, indices: Indices) -> Floats:
        """Some of the rows."""
        if self._is_turned or "whole" in self.__dict__ or self.n_elements <= MOST_HELD:
            return self.whole[indices]
        first, last = int(indices.min()), int(indices.max())
        if last - first < 2 * len(indices):
            return self.rows(first, last + 1)[indices - first]
        return np.concatenate([self.rows(int(i), int(i) + 1) for i in indices])

    @cached_property
    def whole(self) -> Floats:
        """All of it."""
        whole = _numbers(self._source, 0, count(self._source))
        return np.ascontiguousarray(whole.T) if self._is_turned else whole


def _numbers(source: Rows, begin: int, end: int) -> Floats:
    """Rows of a stored matrix, or of several below each other."""
    match source:
        case JoinedRows(parts):
            blocks, first = [], 0
            for part in parts:
                low, high = max(begin - first, 0), min(end - first, count(part))
                if low < high:
                    blocks.append(_numbers(part, low, high))
                first += count(part)
            return np.concatenate(blocks)
        case StoredRows() | StoredColumns():
            values: Array = stored_values(source, begin, end)
            return values.astype(np.float32, copy=False)
        case _:
            raise TypeError(f"{source} is no stored matrix")


def blocks(n_rows: int, n_columns: int) -> list[tuple[int, int]]:
    """Ranges of rows that are compared at a time."""
    step = max(1, _AT_ONCE // max(1, n_columns))
    return [(begin, min(begin + step, n_rows)) for begin in range(0, n_rows, step)]
