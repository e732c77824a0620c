"""One model has one fingerprint, in whatever form it comes; another model has another."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter
from ml_dtypes import bfloat16

from converter.derive.base_model import read_base_model
from converter.errors import ConverterError
from converter.fingerprint import fingerprint
from fixtures.generated import write_safetensors
from fixtures.tiny import CONFIGS, MORE, UNTIED_FOR_GOOD, TinyModel
from tests.rules.specimens import HIDDEN, N_HEAD, VOCAB, write_gguf, write_huggingface

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


# It is stored in users' files, so it may never change: SHA-256 of what sorts first, then what sorts last,
# b"model.layers.0.input_layernorm 32\n" + 32 times 0.5, b"model.norm 32\n" + 0, 1 ... 31, as little-endian float32.
PINNED = "norms-sha256:09023e6bb7de20d30dfdd6aff467c1badbd3f8687b8f4263a0876e0a428fee9c"


def test_it_is_what_it_was_in_files_that_users_have(tmp_path: Path) -> None:
    norms = {
        "output_norm": ("model.norm", np.arange(HIDDEN, dtype="<f4")),
        "blk.0.attn_norm": ("model.layers.0.input_layernorm", np.full(HIDDEN, 0.5, "<f4")),
    }
    hf = write_huggingface(tmp_path / "hf", num_hidden_layers=1)
    stored = {f"{module}.weight": ("F32", (HIDDEN,), values.tobytes()) for module, values in norms.values()}
    write_safetensors(hf / "model.safetensors", stored)
    writer = GGUFWriter(tmp_path / "base.gguf", "llama")
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_head_count(N_HEAD)
    writer.add_tensor("token_embd.weight", np.zeros((VOCAB, HIDDEN), np.float32))
    for name, (_, values) in norms.items():
        writer.add_tensor(f"{name}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert of(hf) == of(tmp_path / "base.gguf") == PINNED


@pytest.mark.parametrize("name", [*CONFIGS, *MORE])
def test_one_number_of_any_norm_changes_it(name: str, tmp_path: Path) -> None:
    path = Path(shutil.copy(TinyModel(name, tied=name not in UNTIED_FOR_GOOD).gguf, tmp_path))
    norms = [t for t in GGUFReader(path, "c").tensors if t.name.endswith("norm.weight")]
    assert len(norms) > 1
    seen = {of(path)}
    for norm in norms:
        with path.open("r+b") as file:
            file.seek(norm.data_offset + norm.n_bytes - 4)
            file.write(b"\x00\x00\x80\x7f")
        seen.add(of(path))
    assert len(seen) == len(norms) + 1


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
