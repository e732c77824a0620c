"""Questions about numbers, against plain numpy."""

import os
from pathlib import Path
from time import time

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType, quants

from converter.derive.adapter import LoraPair
from converter.derive.adapter_tensors import AdapterTensor
from converter.dtypes import SAFETENSORS_FLOATS
from converter.read.stored import StoredTensor
from converter.values import numbers
from converter.values.numbers import (
    are_transposes,
    count_non_finite,
    is_readable,
    is_zero_delta,
    norm,
    relative_difference,
    rounding,
    zero_rows,
)
from converter.values.rows import FLOAT_DTYPES


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, so that the seams between them are tested too."""
    monkeypatch.setattr(numbers, "_BLOCK", 100)


def values(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def stored(path: Path, array: npt.NDArray[np.generic], dtype: str) -> StoredTensor:
    data = array.astype(FLOAT_DTYPES[dtype]).tobytes()
    path.write_bytes(b"head" + data)
    return StoredTensor(path, 4, len(data), array.shape, dtype)


def quantized(path: Path, array: npt.NDArray[np.float32], name: str) -> StoredTensor:
    data = quants.quantize(array, GGMLQuantizationType[name]).tobytes()
    path.write_bytes(data)
    return StoredTensor(path, 0, len(data), array.shape, name)


def test_every_type_of_numbers_can_be_read() -> None:
    assert frozenset(FLOAT_DTYPES) == SAFETENSORS_FLOATS


@pytest.mark.parametrize("dtype", sorted(FLOAT_DTYPES))
def test_non_finite_numbers_are_counted(dtype: str, tmp_path: Path) -> None:
    array = values(9, 33)
    assert count_non_finite(stored(tmp_path / "x", array, dtype)) == 0
    array[0, 0] = array[4, 7] = array[8, 32] = np.nan
    assert count_non_finite(stored(tmp_path / "x", array, dtype)) == 3


def test_a_vector_is_read_too(tmp_path: Path) -> None:
    array = values(333)
    array[332] = np.inf
    assert count_non_finite(stored(tmp_path / "x", array, "F32")) == 1


def test_a_file_that_was_written_again_is_measured_again(tmp_path: Path) -> None:
    array = values(9, 33)
    for age in (100, 50):  # seconds, for what is kept is of files that are left alone
        array *= 2
        tensor = stored(tmp_path / "x", array, "F32")
        os.utime(tensor.path, (time() - age, time() - age))
        assert norm(tensor) == pytest.approx(np.linalg.norm(array))


def test_a_file_that_was_written_just_now_is_measured_each_time(tmp_path: Path) -> None:
    """Its time may not tell a second change from the first."""
    array, now = values(9, 33), time()
    for _ in range(2):
        array *= 2
        tensor = stored(tmp_path / "x", array, "F32")
        os.utime(tensor.path, (now, now))
        assert norm(tensor) == pytest.approx(np.linalg.norm(array))


def test_numbers_too_small_to_square_are_no_zero_delta(tmp_path: Path) -> None:
    lora_b = stored(tmp_path / "b", np.full((4, 2), 1e-30), "F32")
    a, b = AdapterTensor("a", "up", "lora_A", lora_b, "up"), AdapterTensor("b", "up", "lora_B", lora_b, "up")
    assert norm(lora_b) == 0
    assert not is_zero_delta(LoraPair("up", a, b, 1.0))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 33])
def test_every_run_of_half_of_the_rows_is_found(n: int, tmp_path: Path) -> None:
    for begin in range(n):
        for end in range(begin + 1, n + 1):
            array = np.ones((n, 3), np.float32)
            array[begin:end] = 0
            found = zero_rows(stored(tmp_path / "x", array, "F32"))
            assert found == ((begin, end) if 2 * (end - begin) >= n else (0, 0))


def test_what_is_readable(tmp_path: Path) -> None:
    whole = stored(tmp_path / "x", values(4, 5), "F32")
    assert is_readable(whole)
    assert not is_readable(StoredTensor(whole.path, 8, whole.nbytes, whole.shape, "F32"))  # past the end
    assert not is_readable(StoredTensor(whole.path, 4, whole.nbytes - 4, whole.shape, "F32"))
    assert not is_readable(StoredTensor(whole.path, 4, whole.nbytes, (2, 2, 5), "F32"))
    assert not is_readable(StoredTensor(whole.path, 4, whole.nbytes, whole.shape, "I32"))
    assert not is_readable(StoredTensor(whole.path, 4, 0, (0, 5), "F32"))


def test_transposes(tmp_path: Path) -> None:
    array = values(21, 8)
    matrix = stored(tmp_path / "a", array, "F32")
    assert are_transposes(matrix, stored(tmp_path / "b", array.T, "F32"))
    other = array.T.copy()
    other[7, 20] += 1e-6
    assert not are_transposes(matrix, stored(tmp_path / "b", other, "F32"))
    assert not are_transposes(matrix, stored(tmp_path / "b", array, "F32"))


def test_relative_difference_is_that_of_the_whole(tmp_path: Path) -> None:
    x, y = values(12, 40), values(12, 40, seed=1)
    found = relative_difference(stored(tmp_path / "x", x, "F32"), stored(tmp_path / "y", y, "F32"))
    assert found == pytest.approx(np.linalg.norm(x - y) / np.linalg.norm(y), rel=1e-5)
    assert relative_difference(stored(tmp_path / "x", y, "F32"), stored(tmp_path / "y", y, "F32")) == 0
    assert relative_difference(stored(tmp_path / "x", x, "F32"), stored(tmp_path / "y", 0 * y, "F32")) == float("inf")


@pytest.mark.parametrize("name", ["Q8_0", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "MXFP4"])
@pytest.mark.parametrize("heavy", [False, True])
def test_a_types_own_rounding_is_within_its_figure(name: str, heavy: bool, tmp_path: Path) -> None:
    array = values(64, 256)
    if heavy:
        array = np.random.default_rng(0).standard_t(4, (64, 256)).astype(np.float32)
    original, rounded = stored(tmp_path / "x", array, "F32"), quantized(tmp_path / "q", array, name)
    found = relative_difference(original, rounded)
    assert rounding(rounded) / 4 < found < rounding(rounded)


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_the_rounding_of_short_floats(dtype: str, tmp_path: Path) -> None:
    original, rounded = stored(tmp_path / "x", values(64, 256), "F32"), stored(tmp_path / "y", values(64, 256), dtype)
    assert rounding(rounded) / 4 < relative_difference(original, rounded) < rounding(rounded)
