"""adapter-verify with a base and an adapter by name or in a bucket: downloaded, and proven in real llama.cpp."""

import shutil
import struct
from pathlib import Path

import pytest
from click.testing import CliRunner

from converter.cli import to_gguf, verify
from fixtures.adapters import tiny_adapter
from fixtures.buckets import serving_buckets
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


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_model_of_what_lies_in_buckets_is_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    adapter = {f"tide/{name}": path for name, path in files_of(tiny_adapter("plain", BASE)).items()}
    names = [f"{scheme}://proof/tide", "--base", f"{scheme}://proof/base", "--download"]
    monkeypatch.chdir(tmp_path)
    with serving_buckets() as buckets:
        for name, value in buckets.settings(tmp_path).items():
            monkeypatch.setenv(name, value)
        buckets.fill("proof", {**{f"base/{name}": path for name, path in files_of(trainable(BASE)).items()}, **adapter})
        converted = CliRunner().invoke(to_gguf.main, [*names, "--to", "model", "-o", "model.gguf"])
        assert (converted.exit_code, converted.stderr) == (0, "")
        proven = CliRunner().invoke(verify.main, [*names, "--model", "model.gguf"])
        assert proven.exit_code == 0, proven.output
        assert proven.stdout.startswith("PASS")
        # The control: another adapter lies there now.
        held = tiny_adapter("plain", BASE).joinpath("adapter_model.safetensors").read_bytes()
        buckets.put("proof", "tide/adapter_model.safetensors", held[:-400] + struct.pack("<100f", *[3.0] * 100))
        assert CliRunner().invoke(verify.main, [*names, "--model", "model.gguf"]).exit_code == 1
