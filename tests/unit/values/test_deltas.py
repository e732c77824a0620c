"""Norms of deltas, against the product itself."""

from pathlib import Path

import numpy as np
import pytest

from converter.derive.adapter import read_adapter
from converter.values.deltas import delta_norm
from tests.rules.specimens import RANK, UP, Specimen, embedding_lora, tensor


def norms(directory: Path) -> dict[str, float | None]:
    return {pair.module: delta_norm(pair) for pair in read_adapter(directory).pairs}


def values(it: Specimen, key: str) -> np.ndarray:
    _, shape, data = it.tensors[key]
    return np.frombuffer(data, "<f4").reshape(shape).astype(float)


def test_the_norm_is_that_of_the_product(tmp_path: Path) -> None:
    it = Specimen(tmp_path, None)
    it.config["lora_alpha"] = -12
    it.tensors |= embedding_lora()
    it.write()
    found = norms(tmp_path)
    a, b = (values(it, f"{UP}.lora_{factor}.weight") for factor in "AB")
    assert found["model.layers.1.mlp.down_proj"] == pytest.approx(12 / RANK * np.linalg.norm(b @ a), rel=1e-12)
    a, b = (values(it, f"base_model.model.model.embed_tokens.lora_embedding_{factor}") for factor in "AB")
    assert found["model.embed_tokens"] == pytest.approx(12 / RANK * np.linalg.norm(b @ a), rel=1e-12)


def test_what_is_not_a_number_stays_so_and_what_has_no_product_has_no_norm(tmp_path: Path) -> None:
    it = Specimen(tmp_path, None)
    spoilt = np.full((RANK, 96), np.nan, "<f4")
    it.tensors[f"{UP}.lora_A.weight"] = ("F32", (RANK, 96), spoilt.tobytes())
    it.tensors["base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"] = tensor(RANK + 1, 96)
    it.write()
    found = norms(tmp_path)
    assert np.isnan(found["model.layers.1.mlp.down_proj"] or 0.0)
    assert found["model.layers.0.mlp.down_proj"] is None
