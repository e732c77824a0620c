"""One model has one fingerprint, in whatever form it comes; another model has another."""

from pathlib import Path

import numpy as np
import pytest
from ml_dtypes import bfloat16

from converter.derive.base_model import read_base_model
from converter.errors import ConverterError
from converter.fingerprint import fingerprint
from fixtures.generated import write_safetensors
from fixtures.tiny import CONFIGS, TinyModel
from tests.rules.specimens import HIDDEN, write_gguf, write_huggingface

DTYPES = {"F32": "<f4", "F16": "<f2", "BF16": bfloat16}


def of(path: Path) -> str | None:
    return fingerprint(read_base_model(path))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_directory_and_its_gguf_have_one(name: str) -> None:
    model = TinyModel(name)
    assert of(model.hf) == of(model.gguf)


def test_tiny_models_have_one_each() -> None:
    assert len({of(TinyModel(name).gguf) for name in CONFIGS}) == len(CONFIGS)


def test_quantisation_changes_nothing(tmp_path: Path) -> None:
    found = {of(write_gguf(tmp_path / outtype, outtype=outtype, seed=1)) for outtype in ("F32", "BF16", "Q8_0", "Q4_0")}
    assert len(found) == 1


def test_one_number_of_one_norm_changes_it(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "base.gguf", seed=1)
    before, norm = of(path), read_base_model(path).tensors["model.norm.weight"]
    with path.open("r+b") as file:
        file.seek(norm.offset + norm.nbytes - 4)
        file.write(b"\x00\x00\x80\x3f")
    assert of(path) != before


@pytest.mark.parametrize("dtype", DTYPES)
def test_gemmas_norms_are_those_of_its_gguf(dtype: str, tmp_path: Path) -> None:
    """llama.cpp's converter adds the 1 in F16 to what is stored as F16, else in F32."""
    stored = np.random.default_rng(0).normal(0, 1, HIDDEN).astype(DTYPES[dtype])
    hf = write_huggingface(tmp_path / "hf", model_type="gemma")
    write_safetensors(hf / "model.safetensors", {"model.norm.weight": (dtype, (HIDDEN,), stored.tobytes())})
    gguf_of = stored.astype(np.float16) + np.float16(1) if dtype == "F16" else stored.astype(np.float32) + np.float32(1)
    kept = gguf_of.astype("<f4")
    same = write_huggingface(tmp_path / "same", model_type="llama")
    write_safetensors(same / "model.safetensors", {"model.norm.weight": ("F32", (HIDDEN,), kept.tobytes())})
    assert of(hf) == of(same)


def test_a_config_alone_has_none(tmp_path: Path) -> None:
    assert of(write_huggingface(tmp_path)) is None


def test_norms_of_another_type_have_none(tmp_path: Path) -> None:
    hf = write_huggingface(tmp_path)
    write_safetensors(hf / "model.safetensors", {"model.norm.weight": ("I8", (HIDDEN,), bytes(HIDDEN))})
    assert of(hf) is None


def test_a_base_that_is_cut_off_is_told(tmp_path: Path) -> None:
    base = read_base_model(write_gguf(tmp_path / "base.gguf"))
    base.path.write_bytes(base.path.read_bytes()[:-64])
    with pytest.raises(ConverterError, match="ended while it was read"):
        fingerprint(base)
