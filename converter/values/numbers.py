"""Questions about a tensor's numbers, answered block by block in bounded memory."""

from collections.abc import Iterator
from functools import lru_cache
from math import isfinite, nan, prod, sqrt
from time import time_ns
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from converter.derive.adapter import LoraPair
from converter.read.files import status_of
from converter.read.stored import StoredTensor
from converter.values import memory
from converter.values.rows import FLOAT_DTYPES, n_columns, n_rows, read_columns, read_rows

_BLOCK: Final = 1 << 20  # elements
_SETTLED_NS: Final = 3 * 10**9  # within a tick of a file system's clock (FAT: 2 s) a change may go unseen

# How far a type's values are from those they were rounded from: ||x - q(x)|| / ||x||, twice the figure measured on
# normally distributed weights (gguf 0.19, libgguf 0.2.2), because real weights have heavier tails.
_ROUNDING: Final = {
    "F64": 0.0,
    "F32": 1e-6,
    "F16": 4e-4,
    "BF16": 3.3e-3,
    "Q8_0": 0.011,
    "Q6_K": 0.036,
    "Q5_K": 0.072,
    "Q5_1": 0.076,
    "Q5_0": 0.086,
    "Q4_K": 0.14,
    "IQ4_NL": 0.15,
    "IQ4_XS": 0.15,
    "Q4_1": 0.16,
    "Q4_0": 0.17,
    "MXFP4": 0.23,
    "Q3_K": 0.3,
    "IQ3_S": 0.33,
    "IQ3_XXS": 0.43,
    "IQ2_S": 0.53,
    "Q2_K": 0.59,
    "IQ2_XS": 0.6,
    "IQ2_XXS": 0.69,
}
_COARSEST: Final = 1.0  # types of fewer bits: only a tensor that has nothing in common is told apart


def is_readable(tensor: StoredTensor) -> bool:
    """Whether a tensor's numbers are all there: a float vector or matrix whose bytes lie inside its file."""
    dtype = FLOAT_DTYPES.get(tensor.dtype)
    if dtype is None or len(tensor.shape) not in (1, 2) or tensor.n_elements == 0:
        return False
    end = tensor.offset + tensor.nbytes
    return tensor.nbytes == tensor.n_elements * dtype.itemsize and end <= memory.size(tensor.path)


def count_non_finite(tensor: StoredTensor) -> int:
    """How many of a tensor's numbers are NaN or infinite."""
    return 0 if isfinite(norm(tensor)) else _count_non_finite(tensor)


def _count_non_finite(tensor: StoredTensor) -> int:
    return sum(int(block.size - np.count_nonzero(np.isfinite(block))) for block in _blocks(tensor))


def holds_in_float16(tensor: StoredTensor) -> bool:
    """Whether F16 has every one of a float tensor's numbers, to the bit."""
    with np.errstate(over="ignore"):
        return all(bool((block.astype(np.float16) == block).all()) for block in _blocks(tensor))


def norm(tensor: StoredTensor) -> float:
    """The root of the sum of a tensor's squares; NaN where one of its numbers is not finite, or not there."""
    known = memory.norms()
    if known is not None:
        found = known.get(tensor)
        if found is None:
            found = known[tensor] = _norm(tensor) if is_readable(tensor) else nan
        return found
    if not is_readable(tensor):
        return nan
    modified_ns = status_of(tensor.path).st_mtime_ns
    return _kept_norm(tensor, modified_ns) if time_ns() - modified_ns > _SETTLED_NS else _norm(tensor)


# Four rules ask, and reading is what it costs. A file that has changed is read again.
@lru_cache(maxsize=1 << 14)
def _kept_norm(tensor: StoredTensor, _modified_ns: int) -> float:
    return _norm(tensor)


def _norm(tensor: StoredTensor) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        squares = sum(_squared(block.astype(np.float32, copy=False)) for block in _blocks(tensor))
        if isfinite(squares):
            return sqrt(squares)
        wide = sum(float(np.square(block.astype(np.float64)).sum()) for block in _blocks(tensor))
    return nan if _count_non_finite(tensor) else sqrt(wide)


# Root mean square of a delta that no forward pass shows: float32 has 7 digits, float64 16, and weights are near 0.01.
_SMALLEST_SHOWN: Final = 1e-16


def is_zero_delta(pair: LoraPair) -> bool:
    """Whether one of the factors is all zero (PEFT starts with it so, or it was lost), or their product as good as.

    A scaling that is 0 was meant to be.
    """
    if _is_zero(pair.b.tensor) or _is_zero(pair.a.tensor):
        return True
    a, b = norm(pair.a.tensor), norm(pair.b.tensor)
    is_measured = a > 0 and b > 0 and pair.scaling != 0
    return is_measured and abs(pair.scaling) * a * b < _SMALLEST_SHOWN * sqrt(max(1, prod(pair.shape)))


def _is_zero(tensor: StoredTensor) -> bool:
    # Squares of very small numbers are zero too.
    return norm(tensor) == 0 and not any(block.any() for block in _blocks(tensor))


def zero_rows(tensor: StoredTensor) -> tuple[int, int]:
    """Begin and end of a matrix's longest run of rows of zeros, if that is a half of it or more; (0, 0) else."""
    n = n_rows(tensor) if is_readable(tensor) else 0
    # A run of half of the rows has one of these three in it: where none of them is zero no more is to be read.
    if not any(not read_rows(tensor, i, i + 1).any() for i in {n // 4, n // 2, n - 1 - n // 4} if n):
        return 0, 0
    used = np.flatnonzero(np.concatenate([block.any(axis=1) for block in _blocks(tensor)]))
    ends = np.concatenate(([-1], used, [n]))
    longest = int(np.diff(ends).argmax())
    begin, end = int(ends[longest]) + 1, int(ends[longest + 1])
    return (begin, end) if 2 * (end - begin) >= n else (0, 0)


def are_transposes(tensor: StoredTensor, other: StoredTensor) -> bool:
    """Whether two matrices hold the same numbers, one transposed."""
    if not (is_readable(tensor) and is_readable(other)) or tensor.shape != other.shape[::-1]:
        return False
    step = max(1, _BLOCK // n_columns(tensor))
    for begin in range(0, n_rows(tensor), step):
        end = min(begin + step, n_rows(tensor))
        if not np.array_equal(read_rows(tensor, begin, end), read_columns(other, begin, end)):
            return False
    return True


def are_equal(tensor: StoredTensor, other: StoredTensor) -> bool:
    """Whether two tensors hold the same numbers."""
    if not (is_readable(tensor) and is_readable(other)) or tensor.shape != other.shape:
        return False
    return all(np.array_equal(x, y) for x, y in zip(_blocks(tensor), _blocks(other), strict=True))


def relative_difference(tensor: StoredTensor, reference: StoredTensor) -> float:
    """||x - y|| / ||y|| of two tensors of one shape; infinite where ``tensor`` can't be read."""
    if not is_readable(tensor):
        return float("inf")
    difference = norm = 0.0
    for x, y in zip(_blocks(tensor), _blocks(reference), strict=True):
        y_values = y.astype(np.float32, copy=False)
        difference += _squared(x.astype(np.float32, copy=False) - y_values)
        norm += _squared(y_values)
    if difference == 0.0:
        return 0.0
    return float(np.sqrt(difference / norm)) if norm else float("inf")


def rounding(tensor: StoredTensor) -> float:
    """The largest relative difference that a tensor's type explains."""
    return _ROUNDING.get(tensor.dtype, _COARSEST)


def _squared(values: npt.NDArray[np.float32]) -> float:
    return float(np.vdot(values, values))


def _blocks(tensor: StoredTensor) -> Iterator[npt.NDArray[Any]]:
    data = memory.small(tensor) if tensor.dtype in FLOAT_DTYPES and not tensor.transposed else None
    if data is not None:
        yield np.frombuffer(data, FLOAT_DTYPES[tensor.dtype]).reshape(n_rows(tensor), n_columns(tensor))
        return
    step = max(1, _BLOCK // n_columns(tensor))
    for begin in range(0, n_rows(tensor), step):
        yield read_rows(tensor, begin, min(begin + step, n_rows(tensor)))
