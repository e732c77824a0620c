"""What the kernels of this package share: 64 lanes side by side, each with a sub-block; float32 as libggml has it."""

from typing import Final

import numpy as np
import numpy.typing as npt

from converter.evaluation.jit import inlined, jitted

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

F = np.float32
ZERO: Final = F(0)
ONE: Final = F(1)
_TO_NEAREST: Final = F(3 << 22)  # added and taken away, it leaves what is below 2^22 rounded to nearest, ties to even
# libggml's rounding takes the low bits of that sum, which above 2^22 are no number: such a block is odd.
LARGEST_LEVEL: Final = F(4e6)
# Of a sub-block's range: far from where a square leaves float32.
LEAST: Final = F(1e-20)
MOST: Final = F(1e20)

# --- Numbers ---------------------------------------------------------------------------------------------------------


@inlined
def nearest(value: F) -> F:
    return (value + _TO_NEAREST) - _TO_NEAREST


@inlined
def within(level: F, least: F, most: F) -> F:
    level = level if level > least else least
    return level if level < most else most


@inlined
def byte(level: F) -> np.uint8:
    return np.uint8(np.int32(level))


_F16_ONE: Final = np.uint64(1)
_F16_SHIFT: Final = np.uint64(42)
_F16_LOW: Final = np.uint64((1 << 42) - 1)
_F16_HALF: Final = np.uint64((1 << 41) - 1)
_F16_BIAS: Final = np.uint64(1008 << 10)
_F16_COUNT: Final = np.uint64((1 << 52) - 1)
_31_BITS: Final = np.uint32(31)
_15_BITS: Final = np.uint64(15)
F16_LARGEST: Final = F(65504)


@inlined
def to_half(value: F) -> tuple[np.uint64, F]:
    """The bits of the F16 nearest to a number of at most 65504, of two the even one; and that F16 as a number."""
    magnitude = np.float64(abs(value))
    bits = np.float64(magnitude).view(np.uint64)
    rounded = bits + _F16_HALF + ((bits >> _F16_SHIFT) & _F16_ONE)
    word = (rounded >> _F16_SHIFT) - _F16_BIAS
    back = np.uint64(rounded & ~_F16_LOW).view(np.float64)
    if magnitude < 2.0**-14:
        counted = magnitude + 2.0**28
        word = np.float64(counted).view(np.uint64) & _F16_COUNT
        back = counted - 2.0**28
    sign = np.uint64(F(value).view(np.uint32) >> _31_BITS) << _15_BITS  # of -0 too
    return word | sign, F(back) if value >= ZERO else F(-back)


@inlined
def put_half(block: Bytes, at: int, word: np.uint64) -> None:
    block[at] = np.uint8(word & np.uint64(255))
    block[at + 1] = np.uint8(word >> np.uint64(8))


# --- Lanes -----------------------------------------------------------------------------------------------------------

LANES: Final = 64
UNROLLED: Final = 8  # numbers for which a lane's sums stay in registers

# What each lane knows, in one array: places of its sections. One array, because LLVM takes several lanes at once only
# where it can tell that what is written isn't what is read, and constants tell it.
MIN, MAX, LOW, MEAN = (i * LANES for i in range(4))
SUM_W, SUM_X, SCALE, BEST = (i * LANES for i in range(4, 8))
INVERSE, SUM_L, SUM_L2, SUM_XL = (i * LANES for i in range(8, 12))
TRY_SCALE, TRY_MIN, ERROR, ODD = (i * LANES for i in range(12, 16))
N_SECTIONS: Final = 16


@inlined
def transpose(numbers: Floats, at: int, n: int, x: Floats) -> None:
    """Sub-blocks of ``n`` numbers, so that the numbers of one place lie beside each other."""
    for lane in range(LANES):
        for i in range(n):
            x[i * LANES + lane] = numbers[at + lane * n + i]


@jitted
def largest(x: Floats, s: Floats, n: int) -> None:
    """Of each sub-block the first number that none is larger than, in MIN, and its magnitude, in MAX."""
    for lane in range(LANES):
        s[MIN + lane] = ZERO
        s[MAX + lane] = ZERO
        s[ODD + lane] = ZERO
    for i in range(n):
        for lane in range(LANES):
            value = x[i * LANES + lane]
            magnitude, largest = abs(value), s[MAX + lane]
            s[MIN + lane] = value if magnitude > largest else s[MIN + lane]
            s[MAX + lane] = magnitude if magnitude > largest else largest
            s[ODD + lane] = s[ODD + lane] if magnitude < MOST else ONE
