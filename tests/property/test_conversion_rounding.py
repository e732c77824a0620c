"""Encoding against other people's: Python's struct for F16 and F32, exact fractions for BF16, gguf's for Q8_0."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, quants
from hypothesis import example, given
from hypothesis import strategies as st

from converter.dtypes import BF16, F16, F32, GGML_BY_NAME, Q8_0
from converter.errors import JUDGED_BAD, RuleBroken
from converter.evaluation.encode import decode, encode
from converter.read.stored import StoredTensor
from converter.values.rows import read_rows

LARGEST_BF16 = float.fromhex("0x1.fep127")


def doubles(largest: float) -> st.SearchStrategy[list[float]]:
    """Any float64 values in range, small ones and those next to a tie too."""
    any_value = st.floats(-largest, largest)
    return st.lists(any_value | st.floats(-2.0, 2.0) | near_ties(), min_size=1, max_size=8)


def near_ties() -> st.SearchStrategy[float]:
    """Midway between two BF16 or two F16 values, or beside that by less than a float32 can tell."""
    midway = st.tuples(st.integers(-(2**12), 2**12), st.sampled_from([2.0**-8, 2.0**-11]))
    beside = st.sampled_from([0.0, 2.0**-40, -(2.0**-40), 2.0**-30, -(2.0**-30)])
    return st.tuples(midway, beside).map(lambda it: (it[0][0] + 0.5) * it[0][1] + it[1])


def row(values: list[float]) -> np.ndarray:
    return np.array([values], np.float64)


@given(doubles(65504.0))
@example([2.0**-25])  # a tie between 0 and the smallest subnormal
@example([2.0**-25 * (1 + 2.0**-40)])
def test_f16_is_rounded_as_python_rounds(values: list[float]) -> None:
    assert encode(row(values), F16, "w").tobytes() == struct.pack(f"<{len(values)}e", *values)


@given(doubles(float(np.finfo(np.float32).max)))
def test_f32_is_rounded_as_python_rounds(values: list[float]) -> None:
    assert encode(row(values), F32, "w").tobytes() == struct.pack(f"<{len(values)}f", *values)


@given(doubles(LARGEST_BF16))
# Float32 makes a tie of each, which the next rounding, to even, takes to the wrong side.
@example([1 + 2.0**-8 + 2.0**-40, 1 + 3 * 2.0**-8 - 2.0**-40, -1 - 2.0**-8 - 2.0**-40])
@example([1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8, 0.0, -0.0, 2.0**-133, 2.0**-134, 3 * 2.0**-134])
# The float32 on its way there is a tie, and beside the tie: just above, at, just below half the smallest BF16.
@example([2.0**-134 * (1 + 2.0**-30), 2.0**-134 * (1 - 2.0**-30)])
@example([LARGEST_BF16, -LARGEST_BF16])
def test_bf16_is_rounded_once_to_the_nearest(values: list[float]) -> None:
    found = np.frombuffer(encode(row(values), BF16, "w").tobytes(), "<u2").tolist()
    assert found == [nearest_bf16(value) for value in values]


def nearest_bf16(value: float) -> int:
    """The bits of the BF16 nearest to `value`, of two at one distance the even one, by exact arithmetic."""
    below = magnitude_below(abs(value))
    down, up = (Fraction(bf16_value(bits)) for bits in (below, below + 1))
    distances = Fraction(abs(value)) - down, up - Fraction(abs(value))
    is_up = distances[1] < distances[0] or (distances[0] == distances[1] and below % 2 == 1)
    sign = 0x8000 if np.signbit(value) else 0
    return sign | (below + int(is_up))


def magnitude_below(value: float) -> int:
    """The bits of the largest BF16 that is not above `value`, by bisection: bits are in the order of values."""
    low, high = 0, 0x7F80
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bf16_value(middle) <= value else (low, middle)
    return low


def bf16_value(bits: int) -> float:
    """A BF16 is the upper half of a float32."""
    if bits == 0x7F80:
        return 2.0**128  # where the next value would be
    value: float = struct.unpack("<f", struct.pack("<I", bits << 16))[0]
    return value


# Below 127 / F32's largest, 1 / scale overflows in ggml's own code, and what becomes of it is undefined.
_SCALED = st.floats(-1e6, 1e6, width=32).filter(lambda x: x == 0 or abs(x) > 1e-36)


@given(st.lists(_SCALED, min_size=32, max_size=96).map(lambda it: it[: len(it) // 32 * 32]))
def test_q8_0_is_what_ggml_makes_of_it(values: list[float]) -> None:
    expected = quants.quantize(np.array([values], np.float32), GGMLQuantizationType.Q8_0)
    found = encode(row(values), Q8_0, "w")
    assert found.tobytes() == expected.tobytes()
    np.testing.assert_array_equal(decode(found, Q8_0), quants.dequantize(expected, GGMLQuantizationType.Q8_0))


@given(
    st.sampled_from([("F16", 65504.0), ("F32", float(np.finfo(np.float32).max)), ("BF16", LARGEST_BF16)]),
    st.floats(min_value=1 + 2.0**-40, max_value=1e200) | st.sampled_from([float("inf"), float("nan")]),
    st.sampled_from([1.0, -1.0]),
)
def test_what_does_not_fit_is_refused(largest: tuple[str, float], factor: float, sign: float) -> None:
    name, value = largest
    encode(row([1.0, sign * value]), GGML_BY_NAME[name], "blk.0.w")
    with pytest.raises(RuleBroken, match=r"^NM010: blk\.0\.w: .*--outtype f32$") as refused:
        encode(row([1.0, sign * value * factor]), GGML_BY_NAME[name], "blk.0.w")
    assert (refused.value.code, refused.value.status) == ("NM010", JUDGED_BAD)


def test_every_bf16_value_is_read_and_written_as_it_is(tmp_path: Path) -> None:
    bits = np.arange(2**16, dtype="<u2")
    path = tmp_path / "values"
    path.write_bytes(bits.tobytes())
    values = read_rows(StoredTensor(path, 0, bits.nbytes, (256, 256), "BF16"), 0, 256)
    expected = (bits.astype("<u4") << 16).view("<f4").reshape(256, 256)
    np.testing.assert_array_equal(values.astype(np.float32).view("<u4"), expected.view("<u4"))
    finite = np.isfinite(expected).all(axis=1)
    written = encode(values[finite].astype(np.float64), BF16, "w")
    assert written.tobytes() == bits.reshape(256, 256)[finite].tobytes()
