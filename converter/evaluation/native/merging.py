"""base + scaling * product, rounded once to a float type, in one pass over memory (merged.hpp).

numpy takes a pass for every step, and its cast from float64 to float16 is a loop of scalars: six times the CPU. Every
operation here is the one that the plain way does, in float64 and in its order, so every byte is the same.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np

from converter.dtypes import GgmlType
from converter.evaluation.native import Kernels
from converter.evaluation.rounded_sum import Merging, Rounded, Sums
from converter.evaluation.rows import Doubles
from converter.values.rows import FLOAT_DTYPES, Array

# As kernels.cpp counts them.
_TYPES: Final = ("F32", "F16", "BF16", "F64")
_PLACES: Final = {FLOAT_DTYPES[name]: place for place, name in enumerate(_TYPES)}

_PRODUCT_N_ELEMENTS: Final = 1 << 17  # 1 MB


def merging(kernels: Kernels) -> Merging:
    """The ways to merge by these kernels."""

    def rounded_sum(base: Array, product: Doubles, scaling: float, to: GgmlType) -> Rounded | None:
        return _rounded(kernels, base, [(0, product)], scaling, to)

    def merged(base: Array, left: Doubles, right: Doubles, scaling: float, to: GgmlType) -> Rounded | None:
        return _rounded(kernels, base, _products_of_columns(left, right), scaling, to)

    def sums_of(base: Array, product: Doubles, scaling: float, stored: Array) -> Sums:
        (place, words), found = placed(base), np.zeros(3)
        kernels.sums(
            place, words, np.ascontiguousarray(product), words.size, scaling, np.ascontiguousarray(stored), found
        )
        return Sums(*found.tolist())

    return Merging(rounded_sum, merged, sums_of)


def placed(base: Array) -> tuple[int, Array]:
    """The place of a type that the kernels know, and the numbers in it."""
    known = base if base.dtype in _PLACES else base.astype(np.float64)
    return _PLACES[known.dtype], np.ascontiguousarray(known)


# BLAS lays both factors out anew for every product. Of tall and narrow ones it is little beside the product itself,
# which stays in a core's cache until it is added, and is never there as a whole.


def products_of_rows(left: Doubles, right: Doubles) -> Iterator[tuple[slice, Doubles]]:
    """``left`` @ ``right``, some rows at a time."""
    n_rows, n_columns = len(left), right.shape[1]
    height = min(max(1, _PRODUCT_N_ELEMENTS // n_columns), n_rows)
    buffer = np.empty((height, n_columns))
    for first in range(0, n_rows, height):
        some = left[first : first + height]
        yield slice(first, first + len(some)), np.matmul(some, right, out=buffer[: len(some)])


def _products_of_columns(left: Doubles, right: Doubles) -> Iterator[tuple[int, Doubles]]:
    """``left`` @ ``right``, some columns at a time, and where they begin."""
    n_rows, n_columns = len(left), right.shape[1]
    width = min(max(1, _PRODUCT_N_ELEMENTS // n_rows), n_columns)
    buffer = np.empty(n_rows * width)
    for first in range(0, n_columns, width):
        some = right[:, first : first + width]
        shape = (n_rows, some.shape[1])
        yield first, np.matmul(left, some, out=buffer[: shape[0] * shape[1]].reshape(shape))


def _rounded(
    kernels: Kernels, base: Array, products: Iterable[tuple[int, Doubles]], scaling: float, to: GgmlType
) -> Rounded | None:
    (place, words), sums = placed(base), np.zeros(3)
    types = place, _TYPES.index(to.name)
    out = np.empty(base.shape, FLOAT_DTYPES[to.name])
    for first, product in products:
        sizes = *product.shape, base.shape[1]
        if not kernels.merge(
            *types, words[:, first:], np.ascontiguousarray(product), out[:, first:], *sizes, scaling, sums
        ):
            return None
    return Rounded(out, Sums(*sums.tolist()))
