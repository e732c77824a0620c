"""adapter-verify with a base and an adapter by name: downloaded, and proven in real llama.cpp against PEFT."""

import shutil
from pathlib import Path

import pytest

from converter.cli import to_gguf, verify
from fixtures.adapters import tiny_adapter
from fixtures.hub import FakeHub, serving
from fixtures.tiny import TinyModel
from fixtures.trainable import trainable
from tests.unit.hub.commands import invoked
from tests.unit.hub.test_judged_on_hub import files_of

pytestmark = pytest.mark.llama

BASE = TinyModel("llama")


def test_a_lora_of_what_is_on_the_hub_is_proven(tmp_path: Path) -> None:
    shutil.copyfile(BASE.gguf, tmp_path / "base.gguf")
    adapter = {f"tide/{name}": path for name, path in files_of(tiny_adapter("plain", BASE)).items()}
    names = ("hf://org/name/tide", "--base", "org/name")
    with serving(FakeHub({**files_of(trainable(BASE)), **adapter}, large=frozenset({"model.safetensors"}))) as hub:
        converted = invoked(to_gguf.main, hub, tmp_path, *names, "--download", "-o", "lora.gguf")
        assert (converted.status, converted.stderr) == (0, "")
        proof = (*names, "--lora", "lora.gguf", "--base-gguf", "base.gguf")
        assert invoked(verify.main, hub, tmp_path, *proof).status == 2  # the control: the weights aren't here yet
        proven = invoked(verify.main, hub, tmp_path, *proof, "--download")
        assert (proven.status, proven.stderr) == (0, "")
        assert proven.stdout.startswith("PASS")
        hub.requests.clear()
        assert invoked(verify.main, hub, tmp_path, *proof).status == 0
        assert hub.requests == []
