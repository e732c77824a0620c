"""base + scaling * product, rounded once to a float type, in one pass over memory: compiled by numba.

numpy takes a pass for every step, and its cast from float64 to float16 is a loop of scalars: six times the CPU. Every
operation here is the one that the plain way does, in float64 and in its order, so every byte is the same; no fused
multiply-add, no reassociation but in the sums of ``DeltaKept``, which are statistics.

Importing this module imports numba (the extra ``fast``). Each pair of types compiles for 0.6 s, once for a machine.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

from converter.dtypes import GgmlType
from converter.evaluation.jit import is_kept, kept
from converter.evaluation.rounded_sum import Rounded, Sums
from converter.evaluation.rows import Doubles
from converter.values.rows import FLOAT_DTYPES, Array

_MADE_OF: Final = "b360cb00a5b1377c"  # evaluation/jit.py

# --- Types as numbers ------------------------------------------------------------------------------------------------


class _Float(NamedTuple):
    """A float type's place among float64's bits.

    ``shift``: how many fewer bits its mantissa has. ``bias``: the difference of the exponents' biases, in its own bits.
    ``least``: float64's bits of its smallest normal number. ``magic``: 2^52 of its subnormals' spacing, which added to
    a smaller number leaves the number's count of them in the last bits. ``most``: float64's bits of the largest number
    that goes without a question; of what is larger the plain way says what is wrong.
    """

    shift: np.uint64
    bias: np.uint64
    least: np.uint64
    magic: float
    most: np.uint64


def _float(mantissa: int, exponent: int, most: float) -> _Float:
    """Of a type with ``mantissa`` bits behind the leading one, whose normal numbers begin at 2^``exponent``."""
    bias = np.uint64((1022 + exponent) << mantissa)
    magic = 2.0 ** (52 + exponent - mantissa)
    return _Float(np.uint64(52 - mantissa), bias, _bits(2.0**exponent), magic, _bits(most))


def _bits(value: float) -> np.uint64:
    return np.float64(value).view(np.uint64)


# 2^59: evaluation/finite.py asks about numbers from 2^60 on.
_FLOATS: Final = {"F32": _float(23, -126, 2.0**59), "F16": _float(10, -14, 65504.0), "BF16": _float(7, -126, 2.0**59)}

# --- The loop --------------------------------------------------------------------------------------------------------

_SIGN: Final = np.uint64(1 << 63)
_COUNT: Final = np.uint64((1 << 52) - 1)
_ONE: Final = np.uint64(1)
_BIAS: Final = np.uint64(1008 << 52)  # of float64 over F16
_TOP: Final = np.uint64(0x7FF8 << 48)  # NaN, in whose place F16's infinities are as much refused


def _from_bfloat16(word: np.uint16) -> float:
    return np.float64(np.uint32(np.uint32(word) << np.uint32(16)).view(np.float32))


def _from_float16(word: np.int16) -> float:
    magnitude = np.uint64(word & np.int16(0x7FFF))
    normal = np.uint64((magnitude << np.uint64(42)) + _BIAS).view(np.float64)
    value = np.uint64(_TOP).view(np.float64) if magnitude >= np.uint64(0x7C00) else normal
    value = np.float64(magnitude) * 2.0**-24 if magnitude < np.uint64(0x400) else value
    return -value if word < 0 else value


def _from_number(word: float) -> float:
    return np.float64(word)


def _decoded(word: Any) -> Any:
    """A stored number in float64: words of BF16 come as uint16, those of F16 as int16."""


@overload(_decoded, inline="always", strict=False)  # type: ignore[untyped-decorator]  # numba has no types
def _decoder_of(word: Any) -> Any:
    return {types.uint16: _from_bfloat16, types.int16: _from_float16}.get(word, _from_number)


@njit(fastmath={"reassoc"})  # type: ignore[untyped-decorator]  # numba has no types
def _plus(sum_: float, term: float) -> float:
    """Of a sum that may be taken in any order, so that it is taken several numbers at once."""
    return sum_ + term


@kept
def _one_pass(  # noqa: PLR0913, PLR0917  compiled
    base: Array, product: Doubles, scaling: float, out: Array, first: int, to: _Float
) -> tuple[float, float, float, bool]:
    """Columns from ``first`` on, as many as ``product`` has, of two matrices that are as wide as each other."""
    norm2 = error_dot_delta = error_norm2 = 0.0
    is_beyond = False
    half = (_ONE << (to.shift - _ONE)) - _ONE
    mask = ~((_ONE << to.shift) - _ONE)
    to_top = np.uint64(64) - np.uint64(8 * out.itemsize)
    n_rows, n_columns = product.shape
    for row in range(n_rows):
        deltas = product[row]
        words, found = base[row, first : first + n_columns], out[row, first : first + n_columns]
        for i in range(n_columns):
            delta = deltas[i] * scaling
            value = _decoded(words[i]) + delta
            bits = np.float64(value).view(np.uint64)
            sign = bits & _SIGN
            magnitude = bits ^ sign
            is_beyond |= bool(magnitude > to.most)
            # To nearest, of two the even one: a carry into the exponent is what it should be.
            rounded = magnitude + half + ((magnitude >> to.shift) & _ONE)
            counted = np.uint64(magnitude).view(np.float64) + to.magic
            if magnitude < to.least:
                word = np.float64(counted).view(np.uint64) & _COUNT
                back = np.float64(counted - to.magic).view(np.uint64)
            else:
                word = (rounded >> to.shift) - to.bias
                back = rounded & mask
            found[i] = word | (sign >> to_top)
            error = np.uint64(back | sign).view(np.float64) - value
            norm2 = _plus(norm2, delta * delta)
            error_dot_delta = _plus(error_dot_delta, error * delta)
            error_norm2 = _plus(error_norm2, error * error)
    return norm2, error_dot_delta, error_norm2, is_beyond


IS_KEPT: Final = is_kept(_one_pass)

# Of what each type's numbers are given to the loop.
_GIVEN: Final = {
    FLOAT_DTYPES["BF16"]: np.uint16,
    FLOAT_DTYPES["F16"]: np.int16,
    FLOAT_DTYPES["F32"]: np.float32,
    FLOAT_DTYPES["F64"]: np.float64,
}


@kept
def _sums_of(base: Array, product: Doubles, scaling: float, stored: Array) -> tuple[float, float, float]:
    norm2 = error_dot_delta = error_norm2 = 0.0
    for i in range(product.size):
        delta = product[i] * scaling
        error = np.float64(stored[i]) - (_decoded(base[i]) + delta)
        norm2 = _plus(norm2, delta * delta)
        error_dot_delta = _plus(error_dot_delta, error * delta)
        error_norm2 = _plus(error_norm2, error * error)
    return norm2, error_dot_delta, error_norm2


_PRODUCT_N_ELEMENTS: Final = 1 << 17  # 1 MB

# --- The door --------------------------------------------------------------------------------------------------------


def rounded_sum(base: Array, product: Doubles, scaling: float, to: GgmlType) -> Rounded | None:
    """``base`` + ``scaling`` * ``product``, matrices of one shape, rounded once to ``to``.

    None where a number is NaN, or so large that it may be refused: then the plain way has to say so.
    """
    return _rounded(base, [(0, product)], scaling, to)


def merged(base: Array, left: Doubles, right: Doubles, scaling: float, to: GgmlType) -> Rounded | None:
    """``rounded_sum`` of ``left`` @ ``right``, which is never there as a whole.

    BLAS lays both factors out anew for every product. Of tall and narrow ones it is little beside the product itself,
    which stays in a core's cache until it is added.
    """
    n_columns = right.shape[1]
    width = max(1, _PRODUCT_N_ELEMENTS // len(base))
    buffer = np.empty(len(base) * min(width, n_columns))

    def products() -> Iterator[tuple[int, Doubles]]:
        for first in range(0, n_columns, width):
            some = right[:, first : first + width]
            shape = (len(left), some.shape[1])
            yield first, np.matmul(left, some, out=buffer[: shape[0] * shape[1]].reshape(shape))

    return _rounded(base, products(), scaling, to)


def _rounded(base: Array, products: Iterable[tuple[int, Doubles]], scaling: float, to: GgmlType) -> Rounded | None:
    dtype, words, total = FLOAT_DTYPES[to.name], _given(base), np.zeros(3)
    out = np.empty(base.shape, f"<u{dtype.itemsize}")
    for first, product in products:
        *sums, is_beyond = _one_pass(words, product, scaling, out, first, _FLOATS[to.name])
        if is_beyond:
            return None
        total += sums
    return Rounded(out.view(dtype), Sums(*map(float, total)))


def sums_of(base: Array, product: Doubles, scaling: float, stored: Array) -> Sums:
    """Of ``stored``, numbers of float32 that stand for ``base`` + ``scaling`` * ``product``."""
    return Sums(*_sums_of(_given(base).reshape(-1), product.reshape(-1), scaling, stored.reshape(-1)))


def _given(base: Array) -> Array:
    known = base if base.dtype in _GIVEN else base.astype(np.float64)
    words: Array = np.ascontiguousarray(known).view(_GIVEN[known.dtype])
    return words
