"""Bounds against the rounding that numpy, ml_dtypes and gguf really do."""

import ml_dtypes
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from converter.verification.rounding import has_bound, rounding_bound

TYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def values_of_all_sizes() -> np.ndarray:
    generator = np.random.default_rng(1)
    return generator.normal(size=4096) * 10.0 ** generator.uniform(-12, 4, size=4096)


@pytest.mark.parametrize("name", TYPES)
def test_rounding_stays_within_the_bound(name: str) -> None:
    values = values_of_all_sizes()
    error = np.abs(values.astype(TYPES[name]).astype(np.float64) - values)
    assert (error <= rounding_bound(values, name)).all()


@pytest.mark.parametrize("name", TYPES)
def test_the_bound_is_tight(name: str) -> None:
    values = values_of_all_sizes()
    error = np.abs(values.astype(TYPES[name]).astype(np.float64) - values)
    assert (error / rounding_bound(values, name)).max() > 0.99


@pytest.mark.parametrize("name", TYPES)
def test_the_neighbour_of_the_nearest_is_too_far(name: str) -> None:
    values = np.abs(values_of_all_sizes()) + 1e-3
    nearest = values.astype(TYPES[name])
    away = np.where(nearest.astype(np.float64) < values, -1, 1).astype(np.int64)
    bits = nearest.view({4: np.int32, 2: np.int16}[nearest.dtype.itemsize])
    neighbour = (bits + away).astype(bits.dtype).view(nearest.dtype).astype(np.float64)
    assert (np.abs(neighbour - values) > rounding_bound(values, name)).all()


def test_zero_has_the_smallest_unit_of_its_type() -> None:
    assert rounding_bound(np.zeros(1), "F16")[0] == pytest.approx(2.0**-25, rel=1e-2)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 10.0])
def test_q8_0_stays_within_the_step_of_its_block(scale: float) -> None:
    values = np.random.default_rng(2).normal(size=(64, 256)) * scale
    type_ = GGMLQuantizationType.Q8_0
    stored = dequantize(quantize(values.astype(np.float32), type_), type_)
    ratio = np.abs(stored - values) / rounding_bound(values, "Q8_0")
    assert 0.8 < ratio.max() <= 1


def test_q8_0_blocks_are_bounded_by_their_own_largest_value() -> None:
    values = np.concatenate([np.full(32, 100.0), np.full(32, 0.01)]).reshape(1, 64)
    bound = rounding_bound(values, "Q8_0")
    assert bound.shape == values.shape
    assert bound[0, 0] == pytest.approx(1e4 * bound[0, 63], rel=1e-2)


def test_types_without_a_bound_are_known() -> None:
    assert [name for name in ("F32", "Q8_0", "Q4_K", "Q4_0") if not has_bound(name)] == ["Q4_K", "Q4_0"]
