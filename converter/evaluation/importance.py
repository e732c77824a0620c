"""An imatrix's numbers: how much the columns of a matrix weigh where it is quantised."""

import numpy as np

from converter.errors import ConverterError
from converter.evaluation.encode import Weights
from converter.read.imatrix import Importance
from converter.values.rows import read_rows


def importance_of(importance: Importance) -> Weights:
    """The mean square of each column's activations, float32 (columns,), as llama-quantize divides: in float32.

    Columns that were never asked for weigh 1. Raises ConverterError where one isn't finite.
    """
    (n,) = importance.sums.shape
    sums = read_rows(importance.sums, 0, n)[:, 0]
    counts = _counts(importance)
    each = np.repeat(counts, n // len(counts))
    with np.errstate(all="ignore"):
        weights = np.where(each > 0, sums / each, _where_none(importance, sums))
    begin, end = importance.columns
    if not np.isfinite(weights).all():
        raise ConverterError(f"{importance.sums.path}: holds values that are not finite; make the imatrix again")
    return np.ascontiguousarray(weights[begin:end], dtype=np.float32)


def _counts(importance: Importance) -> Weights:
    if isinstance(importance.counts, int):
        return np.array([importance.counts], np.float32)
    (m,) = importance.counts.shape
    # llama.cpp takes them as whole numbers (std::lround).
    return np.floor(read_rows(importance.counts, 0, m)[:, 0] + np.float32(0.5))


def _where_none(importance: Importance, sums: Weights) -> Weights:
    """What stands where nothing was counted: the older format's values are then means already."""
    return sums if isinstance(importance.counts, int) else np.ones_like(sums)
