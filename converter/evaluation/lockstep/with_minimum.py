"""Q4_K and Q5_K: level * scale + minimum, for 8 sub-blocks of 32 numbers.

quantize_row_q4_K_ref, quantize_row_q5_K_ref and make_qkx2_quants in libggml.
"""

from typing import Final

import numpy as np

from converter.evaluation.jit import inlined, jitted, kept
from converter.evaluation.lockstep.lanes import (
    BEST,
    ERROR,
    F16_LARGEST,
    INVERSE,
    LANES,
    LARGEST_LEVEL,
    LEAST,
    LOW,
    MAX,
    MEAN,
    MIN,
    MOST,
    N_SECTIONS,
    ODD,
    ONE,
    SCALE,
    SUM_L,
    SUM_L2,
    SUM_W,
    SUM_X,
    SUM_XL,
    TRY_MIN,
    TRY_SCALE,
    UNROLLED,
    ZERO,
    Bytes,
    F,
    Floats,
    byte,
    nearest,
    put_half,
    to_half,
    transpose,
    within,
)

_MADE_OF: Final = "16f6d3269d1bda02"  # evaluation/jit.py

_32: Final = F(32)
_63: Final = F(63)
_16: Final = F(16)
_INFINITY: Final = F(np.inf)


@jitted
def _weigh(x: Floats, w: Floats, s: Floats) -> None:
    """Weights of the numbers, sums of them, and the range of each sub-block."""
    for lane in range(LANES):
        s[MEAN + lane] = ZERO
    for begin in range(0, 32, UNROLLED):
        for lane in range(LANES):
            sum_ = s[MEAN + lane]
            for i in range(UNROLLED):
                value = x[(begin + i) * LANES + lane]
                sum_ = sum_ + value * value
            s[MEAN + lane] = sum_
    for lane in range(LANES):
        mean, value = np.sqrt(s[MEAN + lane] / _32), x[lane]
        weight = mean + abs(value)
        s[MEAN + lane] = mean
        w[lane] = weight
        s[MIN + lane] = value
        s[MAX + lane] = value
        s[SUM_W + lane] = weight
        s[SUM_X + lane] = weight * value
    for i in range(1, 32):
        for lane in range(LANES):
            value = x[i * LANES + lane]
            weight = s[MEAN + lane] + abs(value)
            least, most = s[MIN + lane], s[MAX + lane]
            w[i * LANES + lane] = weight
            s[MIN + lane] = value if value < least else least
            s[MAX + lane] = value if value > most else most
            s[SUM_W + lane] += weight
            s[SUM_X + lane] += weight * value


@jitted
def _begin(x: Floats, w: Floats, s: Floats, top: F) -> None:
    """The scale and minimum that the range itself gives, and their error."""
    for lane in range(LANES):
        low = s[MIN + lane]
        low = ZERO if low > ZERO else low
        range_ = s[MAX + lane] - low
        inverse = top / range_
        is_fine = (range_ == ZERO) | ((range_ > LEAST) & (range_ < MOST))
        is_fine &= (s[SUM_W + lane] < MOST) & (low > -MOST)
        s[MIN + lane] = low
        s[LOW + lane] = low
        s[INVERSE + lane] = inverse
        s[SCALE + lane] = ONE / inverse
        s[BEST + lane] = ZERO
        s[ODD + lane] = ZERO if is_fine else ONE
    for begin in range(0, 32, UNROLLED):
        for lane in range(LANES):
            least, inverse, scale, sum_ = s[MIN + lane], s[INVERSE + lane], s[SCALE + lane], s[BEST + lane]
            for i in range(UNROLLED):
                value = x[(begin + i) * LANES + lane]
                level = within(nearest(inverse * (value - least)), ZERO, top)
                error = scale * level + least - value
                sum_ = sum_ + w[(begin + i) * LANES + lane] * (error * error)
            s[BEST + lane] = sum_


@jitted
def _fit(x: Floats, w: Floats, s: Floats, step: F, top: F) -> None:
    """Levels for a range widened or narrowed by a step, and the least squares' scale and minimum for these levels."""
    for lane in range(LANES):
        inverse = step / (s[MAX + lane] - s[MIN + lane])
        largest = max(abs(s[MAX + lane]), abs(s[LOW + lane])) + abs(s[MIN + lane])
        is_fine = (abs(inverse) * largest < LARGEST_LEVEL) | (s[MAX + lane] == s[LOW + lane])
        s[ODD + lane] = s[ODD + lane] if is_fine else ONE
        s[INVERSE + lane] = inverse
        s[SUM_L + lane] = ZERO
        s[SUM_L2 + lane] = ZERO
        s[SUM_XL + lane] = ZERO
    for begin in range(0, 32, UNROLLED):
        for lane in range(LANES):
            least, inverse = s[MIN + lane], s[INVERSE + lane]
            sum_l, sum_l2, sum_xl = s[SUM_L + lane], s[SUM_L2 + lane], s[SUM_XL + lane]
            for i in range(UNROLLED):
                value = x[(begin + i) * LANES + lane]
                level = within(nearest(inverse * (value - least)), ZERO, top)
                weighted = w[(begin + i) * LANES + lane] * level
                sum_l = sum_l + weighted
                sum_l2 = sum_l2 + weighted * level
                sum_xl = sum_xl + weighted * value
            s[SUM_L + lane] = sum_l
            s[SUM_L2 + lane] = sum_l2
            s[SUM_XL + lane] = sum_xl
    for lane in range(LANES):
        sum_l, sum_l2, sum_xl = s[SUM_L + lane], s[SUM_L2 + lane], s[SUM_XL + lane]
        sum_w, sum_x = s[SUM_W + lane], s[SUM_X + lane]
        determinant = sum_w * sum_l2 - sum_l * sum_l
        scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        least = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        s[TRY_SCALE + lane] = sum_xl / sum_l2 if least > ZERO else scale
        s[TRY_MIN + lane] = ZERO if least > ZERO else least
        s[ERROR + lane] = ZERO if determinant > ZERO else _INFINITY


@jitted
def _take_better(x: Floats, w: Floats, s: Floats, top: F) -> None:
    """What was fitted, where its error is less."""
    for begin in range(0, 32, UNROLLED):
        for lane in range(LANES):
            least, inverse = s[MIN + lane], s[INVERSE + lane]
            scale, minimum, sum_ = s[TRY_SCALE + lane], s[TRY_MIN + lane], s[ERROR + lane]
            for i in range(UNROLLED):
                value = x[(begin + i) * LANES + lane]
                level = within(nearest(inverse * (value - least)), ZERO, top)
                error = scale * level + minimum - value
                sum_ = sum_ + w[(begin + i) * LANES + lane] * (error * error)
            s[ERROR + lane] = sum_
    for lane in range(LANES):
        is_better = s[ERROR + lane] < s[BEST + lane]
        s[BEST + lane] = s[ERROR + lane] if is_better else s[BEST + lane]
        s[SCALE + lane] = s[TRY_SCALE + lane] if is_better else s[SCALE + lane]
        s[MIN + lane] = s[TRY_MIN + lane] if is_better else s[MIN + lane]


@jitted
def _end(s: Floats) -> None:
    """Of a sub-block whose numbers are all the same there is no scale."""
    for lane in range(LANES):
        is_flat = s[MAX + lane] == s[LOW + lane]
        s[SCALE + lane] = ZERO if is_flat else s[SCALE + lane]
        s[MIN + lane] = s[LOW + lane] if is_flat else s[MIN + lane]


@jitted
def _levels_of(  # noqa: PLR0913, PLR0917  compiled
    numbers: Floats, s: Floats, first: int, top: F, block: Bytes, levels: Bytes
) -> bool:
    """Scales and minima of a block of 8 sub-blocks into ``block``, its levels into ``levels``; whether it is odd."""
    largest_scale = largest_min = ZERO
    is_odd = False
    for j in range(first, first + 8):
        is_odd |= (s[ODD + j] > ZERO) | (not s[SCALE + j] >= ZERO)
        largest_scale = max(largest_scale, s[SCALE + j])
        largest_min = max(largest_min, -s[MIN + j])
    is_odd |= not (largest_scale / _63 <= F16_LARGEST and largest_min / _63 <= F16_LARGEST)
    if is_odd:
        return True
    of_scale = _63 / largest_scale if largest_scale > ZERO else ZERO
    of_min = _63 / largest_min if largest_min > ZERO else ZERO
    word, d = to_half(largest_scale / _63)
    put_half(block, 0, word)
    word, d_min = to_half(largest_min / _63)
    put_half(block, 2, word)
    for j in range(8):
        rounded_scale = min(nearest(of_scale * s[SCALE + first + j]), _63)
        rounded_min = min(nearest(of_min * -s[MIN + first + j]), _63)
        _put_scale(block, j, byte(rounded_scale), byte(rounded_min))
        scale, minimum = d * rounded_scale, d_min * rounded_min
        is_flat = s[MAX + first + j] == s[LOW + first + j]
        largest = max(abs(s[MAX + first + j]), abs(s[LOW + first + j])) + minimum
        is_odd |= not (is_flat or largest < LARGEST_LEVEL * scale)
        for i in range(32):
            level = within(nearest((numbers[j * 32 + i] + minimum) / scale), ZERO, top)
            levels[j * 32 + i] = np.uint8(0) if is_flat else byte(level)
    return is_odd


@inlined
def _put_scale(block: Bytes, j: int, scale: np.uint8, minimum: np.uint8) -> None:
    """Six bits each: of the last four sub-blocks, the upper two lie above those of the first four."""
    if j < 4:
        block[4 + j] = scale
        block[8 + j] = minimum
    else:
        block[8 + j] = (scale & 15) | ((minimum & 15) << 4)
        block[j] |= (scale >> 4) << 6
        block[4 + j] |= (minimum >> 4) << 6


@inlined
def _put_levels(levels: Bytes, block: Bytes, top: F) -> None:
    at = 16
    if top > _16:  # Q5_K: the fifth bits by themselves
        at = 48
        for i in range(32):
            high = 0
            for j in range(8):
                high |= (levels[j * 32 + i] >> 4) << j
            block[16 + i] = high
    for j in range(4):
        for i in range(32):
            block[at + j * 32 + i] = (levels[j * 64 + i] & 15) | ((levels[j * 64 + 32 + i] & 15) << 4)


@kept
def _with_minimum(numbers: Floats, blocks: Bytes, odd: Bytes, steps: Floats, top: F) -> None:
    x, w = np.empty(32 * LANES, np.float32), np.empty(32 * LANES, np.float32)
    s, levels = np.empty(N_SECTIONS * LANES, np.float32), np.empty(256, np.uint8)
    n_at_once = LANES // 8
    for group in range(0, len(blocks), n_at_once):
        first = min(group, len(blocks) - n_at_once)  # the last ones may be made twice
        transpose(numbers, first * 256, 32, x)
        _weigh(x, w, s)
        _begin(x, w, s, top)
        for step in steps:
            _fit(x, w, s, step, top)
            _take_better(x, w, s, top)
        _end(s)
        for b in range(n_at_once):
            block, of_block = blocks[first + b], numbers[(first + b) * 256 : (first + b + 1) * 256]
            odd[first + b] = _levels_of(of_block, s, b * 8, top, block, levels)
            _put_levels(levels, block, top)


def _steps(first: float, step: float, n: int, top: int) -> Floats:
    return np.array([F(first) + F(step) * F(i) + F(top) for i in range(n + 1)], np.float32)


_STEPS_Q4: Final = _steps(-1.0, 0.1, 20, 15)
_STEPS_Q5: Final = _steps(-0.5, 0.1, 15, 31)


def q4_k(numbers: Floats, blocks: Bytes, odd: Bytes) -> None:
    _with_minimum(numbers, blocks, odd, _STEPS_Q4, F(15))


def q5_k(numbers: Floats, blocks: Bytes, odd: Bytes) -> None:
    _with_minimum(numbers, blocks, odd, _STEPS_Q5, F(31))
