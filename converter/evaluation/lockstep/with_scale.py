"""Q6_K: level * scale for 16 sub-blocks of 16 numbers. Q5_0 and Q8_0: one scale for 32 numbers.

quantize_row_q6_K_ref, make_qx_quants, quantize_row_q5_0_ref and quantize_row_q8_0_ref in libggml.
"""

from typing import Final

import numpy as np

from converter.evaluation.jit import jitted, kept
from converter.evaluation.lockstep.lanes import (
    BEST,
    F16_LARGEST,
    INVERSE,
    LANES,
    LARGEST_LEVEL,
    LEAST,
    MAX,
    MIN,
    N_SECTIONS,
    ODD,
    ONE,
    SCALE,
    SUM_L2,
    SUM_XL,
    UNROLLED,
    ZERO,
    Bytes,
    F,
    Floats,
    byte,
    largest,
    nearest,
    put_half,
    to_half,
    transpose,
    within,
)

_MADE_OF: Final = "16f6d3269d1bda02"  # evaluation/jit.py

# --- Q6_K: level * scale ---------------------------------------------------------------------------------------------

_31: Final = F(31)
_32: Final = F(32)
_MINUS_32: Final = F(-32)
_NOTHING: Final = F(1e-15)  # GROUP_MAX_EPS
_127: Final = F(127)
_MINUS_128: Final = F(-128)
_STEPS_Q6: Final = np.array([-(_32 + F(0.1) * F(i)) for i in range(-9, 10) if i], np.float32)


@jitted
def _fit_scale(x: Floats, s: Floats, step: F) -> None:
    for lane in range(LANES):
        s[INVERSE + lane] = step / s[MIN + lane]
        s[SUM_XL + lane] = ZERO
        s[SUM_L2 + lane] = ZERO
    for begin in range(0, 16, UNROLLED):
        for lane in range(LANES):
            inverse, sum_xl, sum_l2 = s[INVERSE + lane], s[SUM_XL + lane], s[SUM_L2 + lane]
            for i in range(UNROLLED):
                value = x[(begin + i) * LANES + lane]
                level = within(nearest(inverse * value), _MINUS_32, _31)
                weight = value * value
                sum_xl = sum_xl + weight * value * level
                sum_l2 = sum_l2 + weight * level * level
            s[SUM_XL + lane] = sum_xl
            s[SUM_L2 + lane] = sum_l2


@jitted
def _search_scale(x: Floats, s: Floats, steps: Floats) -> None:
    _fit_scale(x, s, _MINUS_32)
    for lane in range(LANES):
        scale = s[SUM_XL + lane] / s[SUM_L2 + lane]
        s[SCALE + lane] = scale if s[SUM_L2 + lane] != ZERO else ZERO
        s[BEST + lane] = s[SCALE + lane] * s[SUM_XL + lane]
    for step in steps:
        _fit_scale(x, s, step)
        for lane in range(LANES):
            sum_xl, sum_l2 = s[SUM_XL + lane], s[SUM_L2 + lane]
            is_better = (sum_l2 > ZERO) & (sum_xl * sum_xl > s[BEST + lane] * sum_l2)
            scale = sum_xl / sum_l2
            s[SCALE + lane] = scale if is_better else s[SCALE + lane]
            s[BEST + lane] = scale * sum_xl if is_better else s[BEST + lane]
    for lane in range(LANES):
        s[SCALE + lane] = ZERO if s[MAX + lane] < _NOTHING else s[SCALE + lane]


@jitted
def _levels_of_q6(numbers: Floats, s: Floats, first: int, block: Bytes, levels: Bytes) -> bool:
    largest, magnitude, is_odd = ZERO, ZERO, False
    for j in range(first, first + 16):
        is_odd |= s[ODD + j] > ZERO
        scale = s[SCALE + j]
        largest = scale if abs(scale) > magnitude else largest
        magnitude = max(magnitude, abs(scale))
    if is_odd or not magnitude >= _NOTHING:
        return True
    inverse = _MINUS_128 / largest
    if not abs(ONE / inverse) <= F16_LARGEST:
        return True
    word, d = to_half(ONE / inverse)
    put_half(block, 208, word)
    for j in range(16):
        rounded = min(nearest(inverse * s[SCALE + first + j]), _127)
        block[192 + j] = np.uint8(np.int8(np.int32(rounded)))
        scale = d * rounded
        is_nothing = s[MAX + first + j] < _NOTHING
        is_odd |= not (s[MAX + first + j] < LARGEST_LEVEL * abs(scale) or (is_nothing and scale == ZERO))
        for i in range(16):
            level = within(nearest(numbers[j * 16 + i] / scale), _MINUS_32, _31)
            levels[j * 16 + i] = np.uint8(0) if is_nothing else byte(level + _32)
    return is_odd


@jitted
def _put_levels_of_q6(levels: Bytes, block: Bytes) -> None:
    for half in range(2):
        for i in range(32):
            at = half * 128 + i
            a, b, c, d = levels[at], levels[at + 32], levels[at + 64], levels[at + 96]
            block[half * 64 + i] = (a & 15) | ((c & 15) << 4)
            block[half * 64 + 32 + i] = (b & 15) | ((d & 15) << 4)
            block[128 + half * 32 + i] = (a >> 4) | ((b >> 4) << 2) | ((c >> 4) << 4) | ((d >> 4) << 6)


@kept
def _with_scale(numbers: Floats, blocks: Bytes, odd: Bytes, steps: Floats) -> None:
    x, s = np.empty(16 * LANES, np.float32), np.empty(N_SECTIONS * LANES, np.float32)
    levels = np.empty(256, np.uint8)
    n_at_once = LANES // 16
    for group in range(0, len(blocks), n_at_once):
        first = min(group, len(blocks) - n_at_once)
        transpose(numbers, first * 256, 16, x)
        largest(x, s, 16)
        _search_scale(x, s, steps)
        for b in range(n_at_once):
            block, of_block = blocks[first + b], numbers[(first + b) * 256 : (first + b + 1) * 256]
            odd[first + b] = _levels_of_q6(of_block, s, b * 16, block, levels)
            _put_levels_of_q6(levels, block)


def q6_k(numbers: Floats, blocks: Bytes, odd: Bytes) -> None:
    _with_scale(numbers, blocks, odd, _STEPS_Q6)


# --- Q5_0 and Q8_0: one scale for 32 numbers -------------------------------------------------------------------------

_HALF: Final = F(0.5)
_MINUS_16: Final = F(-16)
_HALF_OF_33: Final = F(16.5)
_INTEGER: Final = F(1 << 23)


@jitted
def _divide(s: Floats, source: int, by: F) -> None:
    """The scale of each block in SCALE, its inverse in INVERSE."""
    for lane in range(LANES):
        scale, magnitude = s[source + lane] / by, s[MAX + lane]
        s[SCALE + lane] = scale
        s[INVERSE + lane] = ONE / scale if scale != ZERO else ZERO
        is_fine = (magnitude == ZERO) | ((magnitude > LEAST) & (magnitude < F16_LARGEST))
        s[ODD + lane] = s[ODD + lane] if is_fine else ONE


@jitted
def _put_lanes(s: Floats, first: int, packed: Bytes, blocks: Bytes, odd: Bytes) -> None:
    for lane in range(LANES):
        block = blocks[first + lane]
        word, _ = to_half(s[SCALE + lane])
        put_half(block, 0, word)
        for i in range(len(block) - 2):
            block[2 + i] = packed[i * LANES + lane]
        odd[first + lane] = s[ODD + lane] > ZERO


@jitted
def _pack_q5(levels: Bytes, packed: Bytes) -> None:
    """The fifth bits of all levels, then the other four of each."""
    for j in range(4):
        for lane in range(LANES):
            bits = np.uint8(0)
            for i in range(8):
                bits |= np.uint8((levels[(j * 8 + i) * LANES + lane] >> 4) << i)
            packed[j * LANES + lane] = bits
    for i in range(16):
        for lane in range(LANES):
            low, high = levels[i * LANES + lane], levels[(16 + i) * LANES + lane]
            packed[(4 + i) * LANES + lane] = (low & 15) | ((high & 15) << 4)


@kept
def q5_0(numbers: Floats, blocks: Bytes, odd: Bytes) -> None:
    x, s = np.empty(32 * LANES, np.float32), np.empty(N_SECTIONS * LANES, np.float32)
    levels, packed = np.empty(32 * LANES, np.uint8), np.empty(20 * LANES, np.uint8)
    for group in range(0, len(blocks), LANES):
        first = min(group, len(blocks) - LANES)
        transpose(numbers, first * 32, 32, x)
        largest(x, s, 32)
        _divide(s, MIN, _MINUS_16)
        for i in range(32):
            for lane in range(LANES):
                level = x[i * LANES + lane] * s[INVERSE + lane] + _HALF_OF_33
                levels[i * LANES + lane] = byte(level if level < _31 else _31)
        _pack_q5(levels, packed)
        _put_lanes(s, first, packed, blocks, odd)


@kept
def q8_0(numbers: Floats, blocks: Bytes, odd: Bytes) -> None:
    x, s = np.empty(32 * LANES, np.float32), np.empty(N_SECTIONS * LANES, np.float32)
    levels = np.empty(32 * LANES, np.uint8)
    for group in range(0, len(blocks), LANES):
        first = min(group, len(blocks) - LANES)
        transpose(numbers, first * 32, 32, x)
        largest(x, s, 32)
        _divide(s, MAX, _127)
        for i in range(32):
            for lane in range(LANES):
                value = x[i * LANES + lane] * s[INVERSE + lane]
                size = abs(value)
                level = (size + _INTEGER) - _INTEGER
                level = level + ONE if size - level == _HALF else level  # a half goes away from zero
                levels[i * LANES + lane] = np.uint8(np.int32(-level if value < ZERO else level))
        _put_lanes(s, first, levels, blocks, odd)
