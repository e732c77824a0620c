"""Bases that were made to waste time and memory, or to end in an exception: each is refused in one line, or judged.

By the command itself, as test_hostile_adapters.py does it; a base is larger than an adapter, and takes longer.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from converter.errors import COULD_NOT, FINE, JUDGED_BAD
from fixtures.adapters import tiny_adapter
from fixtures.tiny import N_VOCAB, TinyModel
from fixtures.trained_tokenizers import write_byte_level
from tests.unit.read.test_hostile_adapters import PROBE

BASE = TinyModel("llama")
Spoil = Callable[[Path], object]


def fields(**changes: object) -> Spoil:
    def spoil(base: Path) -> None:
        path = base / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}), encoding="utf-8")

    return spoil


def layers_alone(n: int) -> Spoil:
    def spoil(base: Path) -> None:
        fields(num_hidden_layers=n)(base)
        (base / "model.safetensors").unlink()

    return spoil


def replaced(name: str, make: Spoil) -> Spoil:
    def spoil(base: Path) -> None:
        (base / name).unlink()
        make(base / name)

    return spoil


def written(name: str, data: bytes) -> Spoil:
    return lambda base: (base / name).write_bytes(data)


def index(weight_map: object) -> Spoil:
    def spoil(base: Path) -> None:
        (base / "model.safetensors").unlink()
        (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")

    return spoil


def header(raw: bytes) -> Spoil:
    return written("model.safetensors", struct.pack("<Q", len(raw)) + raw + bytes(4))


def merges(base: Path) -> None:
    whole = json.loads((base / "tokenizer.json").read_bytes())
    whole["model"]["merges"][0] = 5
    (base / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


HOSTILE: dict[str, tuple[int, Spoil]] = {
    "10^9 layers": (COULD_NOT, layers_alone(10**9)),
    "layers of 400 digits": (COULD_NOT, layers_alone(10**400)),
    "layers below none": (COULD_NOT, layers_alone(-1)),
    "a context of 2^32": (JUDGED_BAD, fields(max_position_embeddings=2**32)),
    "a vocabulary of 10^400": (COULD_NOT, fields(vocab_size=10**400)),
    "a name of half a character": (COULD_NOT, fields(_name_or_path="\ud800")),
    "a type of 5,000 characters": (JUDGED_BAD, fields(model_type="x" * 5000)),
    "a config that is a pipe": (COULD_NOT, replaced("config.json", os.mkfifo)),
    "a config that is a device": (COULD_NOT, replaced("config.json", zero)),
    "a config that is no JSON": (COULD_NOT, written("config.json", b"{")),
    "a config of empty lists": (COULD_NOT, written("config.json", b'{"a":[' + b"[]," * 660_000 + b"[]]}")),
    "a nested config": (COULD_NOT, written("config.json", b'{"a":' + b"[" * 900_000)),
    "weights that are a pipe": (COULD_NOT, replaced("model.safetensors", os.mkfifo)),
    "weights that are a device": (COULD_NOT, replaced("model.safetensors", zero)),
    "a header of empty lists": (COULD_NOT, header(b'{"a":[' + b"[]," * 8_000_000 + b"[]]}")),
    "a shard with a name beyond all": (COULD_NOT, index({"k": "a" * 300})),
    "a shard of another directory": (COULD_NOT, index({"k": "../../../etc/passwd"})),
    "an index of numbers": (COULD_NOT, index({"k": 5})),
    "a tokenizer that is a pipe": (JUDGED_BAD, replaced("tokenizer.json", os.mkfifo)),
    "a tokenizer of merged numbers": (JUDGED_BAD, merges),
    "a tokenizer's config that is no JSON": (JUDGED_BAD, written("tokenizer_config.json", b"{")),
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    shutil.copytree(BASE.hf, tmp_path / "base")
    write_byte_level("gpt-2", tmp_path / "base", N_VOCAB)
    return tmp_path / "base"


def judged(base: Path) -> tuple[int, float, int, str]:
    """Status, seconds of CPU, kilobytes and what was printed on stderr."""
    adapter = str(tiny_adapter("plain", BASE))
    command = [sys.executable, "-m", "converter.cli.check", adapter, "--base", str(base), "--to", "model"]
    ran = subprocess.run(
        [sys.executable, "-c", PROBE, *command], capture_output=True, text=True, timeout=60, check=True
    )
    status, seconds, kilobytes = ran.stdout.partition("\n")[0].split()
    return int(status), float(seconds), int(kilobytes), ran.stderr


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_base_is_told_within_two_seconds(name: str, base: Path) -> None:
    wanted, spoil = HOSTILE[name]
    spoil(base)
    status, seconds, kilobytes, stderr = judged(base)
    assert status == wanted
    assert stderr.count("\n") == (1 if wanted == COULD_NOT else 0)
    assert "Error" not in stderr
    assert len(stderr) < 1000
    assert seconds <= 2
    assert kilobytes <= 200_000


def test_the_base_that_they_were_made_of_is_fine(base: Path) -> None:
    status, _, _, stderr = judged(base)
    assert (status, stderr) == (FINE, "")
