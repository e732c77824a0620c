"""Rows of a GGUF against what gguf wrote."""

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize

from converter.read.gguf_header import read_gguf_header
from converter.verification import gguf_weights
from converter.verification.gguf_weights import Weights, weights_in

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0")


def write(path: Path, tensors: dict[str, tuple[np.ndarray, str]]) -> dict[str, Weights]:
    writer = GGUFWriter(path, "llama")
    for name, (values, type_name) in tensors.items():
        type_ = GGMLQuantizationType[type_name]
        writer.add_tensor(name, quantize(values, type_), raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return dict(weights_in(read_gguf_header(path)))


@pytest.fixture
def matrix() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(10, 64)).astype(np.float32)


@pytest.mark.parametrize("type_name", TYPES)
def test_blocks_of_rows_are_the_tensor(
    type_name: str, matrix: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_weights, "_BLOCK_VALUES", 3 * 64)
    before = np.zeros((1, 32), np.float32)  # so that the tensor does not lie at the start of the data
    weights = write(tmp_path / "m.gguf", {"first": (before, "F32"), "second": (matrix, type_name)})["second"]
    blocks = list(weights.blocks())
    assert [rows.stop - rows.start for rows in blocks] == [3, 3, 3, 1]
    type_ = GGMLQuantizationType[type_name]
    wanted = dequantize(quantize(matrix, type_), type_)
    values = np.concatenate([weights.values(rows) for rows in blocks])
    assert values.dtype == np.float64
    assert np.array_equal(values, wanted)


def test_a_vector_has_one_value_a_row(tmp_path: Path) -> None:
    vector = np.arange(5, dtype=np.float32)
    weights = write(tmp_path / "m.gguf", {"norm": (vector, "F32")})["norm"]
    assert np.array_equal(weights.values(slice(1, 4)), [1, 2, 3])


def test_identity_is_of_type_shape_and_every_byte(matrix: np.ndarray, tmp_path: Path) -> None:
    other = matrix.copy()
    other[9, 63] = np.nextafter(other[9, 63], np.float32(9))
    tensors = {"a": (matrix, "F32"), "b": (matrix, "F32"), "c": (other, "F32"), "d": (matrix, "F16")}
    weights = write(tmp_path / "m.gguf", {**tensors, "e": (matrix.reshape(20, 32), "F32")})
    identical = [name for name in "abcde" if weights["a"].is_identical(weights[name])]
    assert identical == ["a", "b"]
