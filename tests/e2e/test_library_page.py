"""docs/library.md, the examples that need PEFT and llama.cpp: prove and train, on a tiny model."""

import json
import shutil
from pathlib import Path

import pytest

import converter
from fixtures.adapters import tiny_adapter
from fixtures.tiny import TinyModel
from fixtures.trainable import chats, trainable
from tests.unit.library.test_page import PAGE, SLOW, examples

pytestmark = pytest.mark.llama


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the page's reader has: a base in both forms, its adapter, and what the examples before made of it."""
    monkeypatch.chdir(tmp_path)
    base = TinyModel("llama")
    shutil.copytree(trainable(base), "base")
    shutil.copyfile(base.gguf, "base.gguf")
    shutil.copytree(tiny_adapter("plain", base), "my-adapter")
    converter.convert("my-adapter", "lora.gguf", base="base.gguf")
    converter.convert("my-adapter", "model.gguf", base="base.gguf", deployment=converter.Deployment("model"))
    return tmp_path


def run(call: str) -> None:
    (example,) = (example for example in examples() if call in example)
    names = {"converter": converter, "adapter": converter.read_adapter("my-adapter")}
    exec(compile(example, str(PAGE), "exec"), names)  # noqa: S102  our own page


def test_the_proof(directory: Path) -> None:
    run(SLOW[0])
    wrong = json.loads((directory / "my-adapter" / "adapter_config.json").read_bytes())
    (directory / "my-adapter" / "adapter_config.json").write_text(json.dumps(wrong | {"lora_alpha": 1}))
    with pytest.raises(AssertionError):  # the control: another scale than the file was made with
        run(SLOW[0])


def test_the_training(directory: Path) -> None:
    (directory / "data.jsonl").write_text(chats(), encoding="utf-8")
    run(SLOW[1])
    assert converter.check(converter.read_adapter("trained"), converter.read_base("base")).passed
