"""The numbers behind a plan's rows: read, put in order, scaled."""

from math import prod
from typing import TYPE_CHECKING, assert_never

import numpy as np
import numpy.typing as npt

from converter.sources import (
    Filled,
    Given,
    JoinedColumns,
    JoinedRows,
    NegativeExp,
    Rows,
    Scaled,
    StoredColumns,
    StoredRows,
    Zeros,
    shape_of,
)
from converter.values.orders import indices
from converter.values.rows import FLOAT_DTYPES, Array, n_rows, read_columns, read_rows

if TYPE_CHECKING:
    from converter.read.stored import StoredTensor

Doubles = npt.NDArray[np.float64]


def count(source: Rows) -> int:
    """How many rows a source has."""
    return shape_of(source)[0]


def is_stored_as(source: Rows, dtype: str) -> bool:
    """Whether a source's numbers lie in their file as they are, as floats of a type: they then keep every bit."""
    match source:
        case StoredColumns(_, stored):
            return _has_dtype(stored, dtype)
        case StoredRows(_, stored, _, scale, add):
            return scale == 1.0 and add == 0.0 and _has_dtype(stored, dtype)
        case NegativeExp() | Scaled() | Zeros() | Filled() | Given() | JoinedRows() | JoinedColumns():
            return False
        case _:
            assert_never(source)


def _has_dtype(stored: "StoredTensor", dtype: str) -> bool:
    return FLOAT_DTYPES.get(stored.dtype) == FLOAT_DTYPES.get(dtype, np.dtype("V"))


def stored_values(source: Rows, begin: int, end: int) -> Array:
    """Rows ``begin`` to ``end`` of a source, of one that ``is_stored_as`` its type bit by bit."""
    match source:
        case StoredColumns(_, stored):
            return read_columns(stored, begin, end)
        case StoredRows(_, stored, order, columns=columns):
            rows = _ordered(source, begin, end) if order.runs else read_rows(stored, begin, end)
            return rows[:, indices(columns, rows.shape[1])] if columns.runs else rows
        case NegativeExp() | Scaled() | Zeros() | Filled() | Given() | JoinedRows() | JoinedColumns():
            return doubles(source, begin, end)
        case _:
            assert_never(source)


def as_stored(source: Rows, begin: int, end: int) -> Array:
    """Rows ``begin`` to ``end`` of a source in the type that has every bit of them: their own, else float64."""
    if isinstance(source, StoredColumns) or (isinstance(source, StoredRows) and source.scale == 1.0 and not source.add):
        return stored_values(source, begin, end)
    return doubles(source, begin, end)


def doubles(source: Rows, begin: int, end: int) -> Doubles:
    """Rows ``begin`` to ``end`` of a source in float64, shape (end - begin, n_columns); 1 column for a vector."""
    match source:
        case Zeros(shape) | Filled(shape):
            return np.full((end - begin, prod(shape[1:])), source.value if isinstance(source, Filled) else 0.0)
        case Given(shape, data):
            return np.frombuffer(data).reshape(shape)[begin:end]
        case JoinedRows(parts):
            return _below(parts, begin, end)
        case JoinedColumns(parts):
            return np.hstack([doubles(part, begin, end) for part in parts])
        case Scaled(of, factors):
            return _scaled(stored_values(of, begin, end), factors)
        case StoredRows() | StoredColumns() | NegativeExp():
            return _of_stored(source, begin, end)


def _of_stored(source: StoredRows | StoredColumns | NegativeExp, begin: int, end: int) -> Doubles:
    if isinstance(source, NegativeExp):
        return np.asarray(-np.exp(_of_stored(source.of, begin, end)))
    values: Doubles = stored_values(source, begin, end).astype(np.float64)
    if isinstance(source, StoredRows) and (source.scale != 1.0 or source.add):
        return values * source.scale + source.add
    return values


def _scaled(values: Array, factors: tuple[float, ...]) -> Doubles:
    """The values times each of the factors, as torch multiplies a tensor by a number: in float32, then rounded."""
    kept = np.float16 if values.dtype == np.float16 else np.float32
    values = values.astype(kept)
    for factor in factors:
        values = (values.astype(np.float32) * np.float32(factor)).astype(kept)
    return values.astype(np.float64)


def _below(parts: tuple[Rows, ...], begin: int, end: int) -> Doubles:
    blocks, first = [], 0
    for part in parts:
        n = count(part)
        low, high = max(begin - first, 0), min(end - first, n)
        if low < high:
            blocks.append(doubles(part, low, high))
        first += n
    return np.vstack(blocks)


def _ordered(source: StoredRows, begin: int, end: int) -> Array:
    wanted = indices(source.order, n_rows(source.tensor))[begin:end]
    first, last = int(wanted.min()), int(wanted.max())
    gathered: Array = read_rows(source.tensor, first, last + 1)[wanted - first]
    return gathered
