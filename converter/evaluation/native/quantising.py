"""Blocks of Q4_K, Q5_K, Q6_K, Q5_0 and Q8_0 as libggml makes them without an imatrix, many at once.

libggml takes number after number in float32, on one lane of a register. Here a lane is a sub-block (with_minimum.hpp,
with_scale.hpp): each goes through the same operations in the same order, so every float is the one that libggml has,
and so is every byte. Nothing is fused or reassociated, branches are selections. What would leave that path (a value
that isn't finite, a range near float32's ends, a scale that rounds to zero) makes its block **odd**, and libggml makes
that one.

Three things hold it to libggml: the tests, whatever the numbers; every call, which has libggml make a few of its blocks
again; and the processor, for a compiler may fuse a multiplication and an addition where libggml was built for another.

The operations: quantize_row_*_ref in ggml/src/ggml-quants.c of https://github.com/ggml-org/llama.cpp, and the block
structs in its ggml-common.h.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from converter.dtypes import GgmlType
from converter.errors import ConverterError
from converter.evaluation.native import VARIABLE, Kernels
from converter.evaluation.native.merging import placed, products_of_rows
from converter.evaluation.rounded_sum import Rounded, Sums
from converter.evaluation.rows import Doubles
from converter.values.rows import Array

Floats = npt.NDArray[np.float32]
Blocks = npt.NDArray[np.uint8]
LibGgml = Callable[[Floats], Blocks]


def _steps(first: float, step: float, n: int, top: int) -> Floats:
    """In float32, as make_qkx2_quants has them."""
    single = np.float32
    return np.array([single(first) + single(step) * single(i) + single(top) for i in range(n + 1)], single)


class _Type(NamedTuple):
    """Its place in quantised.hpp, the ranges that are tried, and how many blocks a kernel takes at least."""

    place: int
    steps: Floats = np.empty(0, np.float32)
    least: int = 1


# Q6_K's are make_qx_quants', by which the number of the largest magnitude gets a level beside -32.
_STEPS_Q6: Final = np.array([-(np.float32(32) + np.float32(0.1) * np.float32(i)) for i in range(-9, 10) if i])

TYPES: Final[Mapping[str, _Type]] = {
    "Q4_K": _Type(0, _steps(-1.0, 0.1, 20, 15), 4),
    "Q5_K": _Type(1, _steps(-0.5, 0.1, 15, 31), 4),
    "Q6_K": _Type(2, _STEPS_Q6),
    "Q5_0": _Type(3),
    "Q8_0": _Type(4),
}
_PROVED_EACH: Final = 256  # numbers of a call, or a block, which libggml quantises too


def quantised(kernels: Kernels, values: Floats, ggml_type: GgmlType, libggml: LibGgml) -> Blocks:
    """The bytes of rows of numbers, (rows, row's bytes), as ``libggml`` makes them of numbers in that form.

    Raises ConverterError where a block that both have made differs: then none of them can be trusted.
    """
    to, n = TYPES[ggml_type.name], values.size // ggml_type.block_size
    if n < to.least:
        return libggml(values)
    numbers = np.ascontiguousarray(values).reshape(n, -1)
    blocks, odd = np.empty((n, ggml_type.type_size), np.uint8), np.empty(n, np.uint8)
    kernels.quantise(to.place, numbers, n, to.steps, len(to.steps), blocks, odd)
    proved = np.flatnonzero(odd == 0)[:: _each(n, ggml_type)]
    _prove(blocks[proved], numbers[proved], ggml_type, libggml)
    places = np.flatnonzero(odd)
    if len(places):
        blocks[places] = libggml(numbers[places])
    return blocks.reshape(len(values), -1)


def quantised_sum(  # noqa: PLR0913, PLR0917  the terms of a sum, and what makes blocks of it
    kernels: Kernels, base: Array, left: Doubles, right: Doubles, scaling: float, ggml_type: GgmlType, libggml: LibGgml
) -> Rounded | None:
    """``base`` + ``scaling`` * ``left`` @ ``right`` rounded to float32, and that as ``quantised`` does it, in one pass.

    None where a number may have to be refused, or libggml has to make a block: then the parts have to be done one after
    the other. Raises as ``quantised``.
    """
    return _in_one_pass(kernels, base, products_of_rows(left, right), scaling, ggml_type, libggml)


def quantised_rows(kernels: Kernels, base: Array, ggml_type: GgmlType, libggml: LibGgml) -> Rounded | None:
    """``quantised_sum`` of rows that stay as they are."""
    return _in_one_pass(kernels, base, [(slice(None), None)], 1.0, ggml_type, libggml)


def _in_one_pass(  # noqa: PLR0913, PLR0917  the same
    kernels: Kernels,
    base: Array,
    products: Iterable[tuple[slice, Doubles | None]],
    scaling: float,
    ggml_type: GgmlType,
    libggml: LibGgml,
) -> Rounded | None:
    to, n_in_row = TYPES[ggml_type.name], base.shape[1] // ggml_type.block_size
    (place, words), sums = placed(base), np.zeros(3)
    blocks = np.empty((len(base), n_in_row, ggml_type.type_size), np.uint8)
    types, steps = (place, to.place), (to.steps, len(to.steps))
    proved, shown = [], []
    for rows, product in products:
        made = blocks[rows].reshape(-1, ggml_type.type_size)
        n, each = len(made), _each(len(made), ggml_type)
        if n < to.least:
            return None
        proved.append(made[::each])
        shown.append(np.empty((len(proved[-1]), ggml_type.block_size), np.float32))
        if not kernels.quantise_sum(*types, words[rows], product, n, scaling, *steps, made, each, shown[-1], sums):
            return None
    _prove(np.concatenate(proved), np.concatenate(shown), ggml_type, libggml)
    return Rounded(blocks.reshape(len(base), -1), Sums(*sums.tolist()))


def _each(n: int, ggml_type: GgmlType) -> int:
    """Every how manieth of ``n`` blocks is made by libggml too."""
    return max(1, n * ggml_type.block_size // _PROVED_EACH)


def _prove(blocks: Blocks, numbers: Floats, ggml_type: GgmlType, libggml: LibGgml) -> None:
    if len(blocks) and not np.array_equal(libggml(numbers), blocks):
        raise ConverterError(
            f"{ggml_type.name} is not what libggml makes of it on this processor; "
            f"set {VARIABLE}=0, which does without the kernels, and report this"
        )
