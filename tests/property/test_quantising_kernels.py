"""What kernels quantise, at every level, against libggml (libgguf), byte for byte, on whatever the numbers may be."""

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.dtypes import GGML_BY_NAME, GgmlType
from converter.errors import ConverterError
from converter.evaluation.native import Kernels
from converter.evaluation.native.quantising import quantised, quantised_rows, quantised_sum
from converter.evaluation.rounded_sum import Sums
from converter.values.rows import dequantize
from tests.kernels import levels

libgguf = pytest.importorskip("libgguf", reason="needs libgguf (the extra quants)")

pytestmark = pytest.mark.parametrize("kernels", levels(), ids=lambda kernels: f"level {kernels.level}")
TYPES = [GGML_BY_NAME[name] for name in ("Q4_K", "Q5_K", "Q6_K", "Q5_0", "Q8_0")]
N_BLOCKS = 16  # of 256 numbers
Floats = np.ndarray
Draw = Callable[[np.random.Generator, int], Floats]


def libggml(to: GgmlType) -> Callable[[Floats], Any]:
    return lambda rows: libgguf.quantize_rows(rows, GGMLQuantizationType[to.name])


def normal(random: np.random.Generator, n: int) -> Floats:
    return random.standard_normal(n) * 2.0 ** random.integers(-12, 3)


def any_magnitude(random: np.random.Generator, n: int) -> Floats:
    return random.standard_normal(n) * 2.0 ** random.integers(-148, 60)


def each_its_own(random: np.random.Generator, n: int) -> Floats:
    return random.standard_normal(n) * 2.0 ** random.integers(-140, 20, n)


def parts_apart(random: np.random.Generator, n: int) -> Floats:
    """Sub-blocks of 16 whose sizes have little to do with each other."""
    return random.standard_normal(n) * np.repeat(2.0 ** random.integers(-30, 8, n // 16), 16)


def all_of_one_sign(random: np.random.Generator, n: int) -> Floats:
    sign = random.choice([-1.0, 1.0])
    return np.asarray(random.uniform(1, 1 + 2.0 ** random.integers(-20, 2), n) * sign)


def on_a_grid(random: np.random.Generator, n: int) -> Floats:
    """A few values, many of them the same: ties of every kind."""
    return random.integers(-8, 9, n) * 2.0 ** random.integers(-9, 3)


def an_outlier(random: np.random.Generator, n: int) -> Floats:
    values = random.standard_normal(n) * 0.02
    values[random.integers(n)] *= 10.0 ** random.integers(1, 12)
    return values


def zeros(random: np.random.Generator, n: int) -> Floats:
    return random.choice([0.0, -0.0], n)


def mostly_zero(random: np.random.Generator, n: int) -> Floats:
    return np.where(random.random(n) < 0.9, random.choice([0.0, -0.0], n), random.standard_normal(n))


def the_same(random: np.random.Generator, n: int) -> Floats:
    return np.repeat(random.standard_normal(n // 32), 32)


def any_bits(random: np.random.Generator, n: int) -> Floats:
    values = random.integers(0, 1 << 32, n, dtype=np.uint32).view(np.float32)
    return np.where(np.abs(values) < 1e4, values, np.float32(0.5))


DRAWS: list[Draw] = [
    normal, any_magnitude, each_its_own, parts_apart, all_of_one_sign, on_a_grid, an_outlier, zeros, mostly_zero,
    the_same, any_bits,
]  # fmt: skip


@pytest.mark.parametrize("to", TYPES, ids=lambda to: to.name)
@given(st.lists(st.sampled_from(DRAWS), min_size=N_BLOCKS, max_size=N_BLOCKS), st.integers(0, 2**32))
@settings(deadline=None)
def test_every_block_is_libggmls(kernels: Kernels, to: GgmlType, draws: list[Draw], seed: int) -> None:
    random = np.random.default_rng(seed)
    with np.errstate(all="ignore"):
        values = np.stack([draw(random, 256) for draw in draws]).astype(np.float32)
    np.testing.assert_array_equal(quantised(kernels, values, to, libggml(to)), libggml(to)(values))


@pytest.mark.parametrize("to", TYPES, ids=lambda to: to.name)
def test_numbers_of_a_model_are_left_to_libggml_in_few_places(kernels: Kernels, to: GgmlType) -> None:
    """Those that prove it: 256 of 131,072 numbers, and rows of zeros go without."""
    n_asked = 0

    def counted(rows: Floats) -> Any:
        nonlocal n_asked
        n_asked += rows.size
        return libggml(to)(rows)

    values = (np.random.default_rng(5).standard_normal((128, 1024)) * 0.02).astype(np.float32)
    values[7] = 0.0
    values[9, :32] = 0.0
    found = quantised(kernels, values, to, counted)
    np.testing.assert_array_equal(found, libggml(to)(values))
    assert n_asked <= 256 + (1024 if to.name == "Q6_K" else 0)  # of which a block of zeros is odd


@pytest.mark.parametrize("shape", [(1, 256), (3, 256), (7, 512), (65, 256), (33, 768)])
@pytest.mark.parametrize("to", TYPES, ids=lambda to: to.name)
def test_any_number_of_blocks(kernels: Kernels, to: GgmlType, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(6).standard_normal(shape).astype(np.float32)
    found = quantised(kernels, values, to, libggml(to))
    assert found.shape == libggml(to)(values).shape
    np.testing.assert_array_equal(found, libggml(to)(values))


@pytest.mark.parametrize("to", TYPES, ids=lambda to: to.name)
def test_a_difference_from_libggml_ends_it(kernels: Kernels, to: GgmlType) -> None:
    """As where a compiler fused libggml's operations: a few blocks that are its own don't make up for it."""

    def other(rows: Floats) -> Any:
        blocks = np.array(libggml(to)(rows))
        blocks[..., -1] ^= 1
        return blocks

    values = np.random.default_rng(7).standard_normal((128, 1024)).astype(np.float32)
    with pytest.raises(
        ConverterError, match=rf"^{to.name} is not what libggml makes of it .* ADAPTER_TO_GGUF_KERNELS=0"
    ):
        quantised(kernels, values, to, other)


SHAPES = [(4, 256), (1, 4096), (5, 7 * 256), (1031, 768)]  # the last one is multiplied in seven parts


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", ["<f4", "<f2", ml_dtypes.bfloat16])
@pytest.mark.parametrize("to", TYPES, ids=lambda to: to.name)
def test_a_merge_in_one_pass(kernels: Kernels, to: GgmlType, dtype: Any, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(12)
    base = (random.standard_normal(shape) * 0.02).astype(dtype)
    left, right = random.standard_normal((shape[0], 3)), random.standard_normal((3, shape[1]))
    delta = left @ right * 0.001
    served = base.astype(np.float64) + delta
    found = quantised_sum(kernels, base, left, right, 0.001, to, libggml(to))
    assert found is not None
    np.testing.assert_array_equal(found.values, libggml(to)(served.astype(np.float32)))
    error = dequantize(found.values, to.name) - served
    wanted = Sums.of(error, delta)
    np.testing.assert_allclose(found.sums, wanted, rtol=1e-9, atol=1e-12 * wanted.norm2)


@pytest.mark.parametrize("to", TYPES, ids=lambda to: to.name)
def test_rows_that_stay_as_they_are(kernels: Kernels, to: GgmlType) -> None:
    base = (np.random.default_rng(13).standard_normal((1031, 768)) * 0.02).astype("<f2")
    found = quantised_rows(kernels, base, to, libggml(to))
    assert found is not None
    assert found.sums == Sums()
    np.testing.assert_array_equal(found.values, libggml(to)(base.astype(np.float32)))


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, 1e30, 1e-30])
@pytest.mark.parametrize("to", TYPES, ids=lambda to: to.name)
def test_what_is_out_of_the_ordinary_goes_the_plain_way(kernels: Kernels, to: GgmlType, spoilt: float) -> None:
    base = np.full((8, 256), 0.01, np.float32) * np.arange(256, dtype=np.float32)
    base[3] = spoilt
    assert quantised_rows(kernels, base, to, libggml(to)) is None


def test_a_merge_that_libggml_makes_otherwise_ends_it(kernels: Kernels) -> None:
    def other(rows: Floats) -> Any:
        return libggml(TYPES[0])(rows) ^ 1

    base = np.random.default_rng(14).standard_normal((8, 256)).astype(np.float32)
    with pytest.raises(ConverterError, match=r"^Q4_K is not what libggml makes of it"):
        quantised_rows(kernels, base, TYPES[0], other)
