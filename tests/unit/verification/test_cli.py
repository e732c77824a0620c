"""What adapter-verify says before it loads anything heavy: usage, paths, the missing extra."""

import importlib.util
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from gguf import GGUFWriter

from converter.cli import extras, verify
from converter.errors import ConverterError
from converter.verification.verification import refuse_longer
from fixtures.adapters import tiny_adapter
from fixtures.tiny import TinyModel

BASE = TinyModel("llama")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(verify.main, [str(argument) for argument in arguments])


@pytest.fixture
def adapter() -> Path:
    return tiny_adapter("plain", BASE)


def test_a_mistyped_path_is_status_3(tmp_path: Path) -> None:
    result = run(tmp_path / "nowhere", "--base", BASE.hf, "--model", BASE.gguf)
    assert (result.exit_code, "no adapter there" in result.stderr) == (3, True)


def test_an_empty_directory_is_status_3(tmp_path: Path) -> None:
    assert run(tmp_path, "--base", BASE.hf, "--model", BASE.gguf).exit_code == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give what to prove"),
        (["--lora", BASE.gguf, "--model", BASE.gguf], "give what to prove"),
        (["--lora", BASE.gguf], "--lora needs --base-gguf"),
        (["--model", "nowhere.gguf"], "nowhere.gguf: no such GGUF file"),
        (["--model", BASE.gguf, "--quantized-base", "nowhere.gguf"], "nowhere.gguf: no such GGUF file"),
        (["--lora", BASE.gguf, "--base-gguf", BASE.gguf, "--quantized-base", BASE.gguf], "goes with --model"),
        (["--model", BASE.gguf, "--prompts", "a", "--tokens", "b"], "not both"),
    ],
)
def test_usage_is_status_2_and_one_line(adapter: Path, options: list[object], message: str) -> None:
    result = run(adapter, "--base", BASE.hf, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_links_in_a_circle_are_told_of(adapter: Path, tmp_path: Path) -> None:
    circle = tmp_path / "model.gguf"
    circle.symlink_to(circle)
    result = run(adapter, "--base", BASE.hf, "--model", circle)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "Too many levels of symbolic links" in result.stderr


def test_a_missing_extra_is_named(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    result = run(adapter, "--base", BASE.hf, "--model", BASE.gguf)
    assert result.exit_code == 2
    assert (
        result.stderr == "adapter-verify: torch missing; run pip install '.[verify]' in the clone of adapter-to-gguf\n"
    )


def test_a_truncated_adapter_is_its_own_fault(adapter: Path, tmp_path: Path) -> None:
    for file in adapter.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:-1])
    result = run(tmp_path, "--base", BASE.hf, "--model", BASE.gguf)
    assert result.exit_code == 1
    assert "adapter-check" in result.stderr


@pytest.mark.parametrize(("longest", "refused"), [(8, False), (9, True)])
def test_no_sequence_runs_beyond_the_context_of_a_file(longest: int, refused: bool, tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "model.gguf", "grok")
    writer.add_context_length(8)
    writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    sequences = ((1, 2), tuple(range(longest)))
    with pytest.raises(ConverterError, match="ends at 8 tokens, a sequence has 9") if refused else nullcontext():
        refuse_longer(tmp_path / "model.gguf", sequences)
