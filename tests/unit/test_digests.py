"""What a GGUF says that it was made of. These are in users' files, so they may never change for the same inputs."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.digests import adapter_digest, base_digest
from fixtures.generated import write_safetensors
from tests.rules.specimens import HIDDEN, write_gguf

# `sha256sum adapter_config.json adapter_model.safetensors | sha256sum` of the files below.
ADAPTER = "fc58eb07d9399392c6fe6a959827a57d2b4ab018c435ea93affba50ec62ebd73"
# `sha256sum config.json model.safetensors tokenizer.json | sha256sum`.
BASE = "8838b0df524895f4a86aba16cc2b2b0db0c7cb51d3c824d8bad92c6bd32f8439"
CONFIG = '{"peft_type": "LORA", "r": 1, "target_modules": ["q_proj"]}'
BASE_CONFIG = (
    '{"model_type": "llama", "vocab_size": 8, "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, '
    '"intermediate_size": 8}'
)


def write(directory: Path, texts: Mapping[str, str], weights: str) -> Path:
    directory.mkdir()
    for name, text in texts.items():
        (directory / name).write_bytes(text.encode())
    header = b'{"model.norm.weight":{"dtype":"F32","shape":[32],"data_offsets":[0,128]}}'
    (directory / weights).write_bytes(len(header).to_bytes(8, "little") + header + bytes(4 * HIDDEN))
    return directory


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    # A README is no part of it.
    return write(tmp_path / "a", {"adapter_config.json": CONFIG, "README.md": "x"}, "adapter_model.safetensors")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path / "b", {"config.json": BASE_CONFIG, "tokenizer.json": "{}"}, "model.safetensors")


def test_an_adapters_is_what_it_was(adapter: Path) -> None:
    assert adapter_digest(read_adapter(adapter)) == ADAPTER


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_every_file_of_an_adapter_counts(name: str, adapter: Path) -> None:
    (adapter / name).write_bytes((adapter / name).read_bytes() + b" ")
    assert adapter_digest(read_adapter(adapter)) != ADAPTER


def test_a_directorys_is_what_it_was(base: Path) -> None:
    assert base_digest(read_base_model(base)) == BASE


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_every_file_of_a_directory_counts(name: str, base: Path) -> None:
    if name == "model.safetensors":
        write_safetensors(base / name, {"model.norm.weight": ("F32", (HIDDEN,), b"\1" * 4 * HIDDEN)})
    else:
        (base / name).write_bytes((base / name).read_bytes() + b" ")
    assert base_digest(read_base_model(base)) != BASE


def test_a_single_ggufs_is_that_of_its_file(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "base.gguf")
    assert base_digest(read_base_model(path)) == sha256(path.read_bytes()).hexdigest()
