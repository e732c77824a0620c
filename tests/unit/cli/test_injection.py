"""What an adapter or a base says is shown, never acted upon: by a terminal, by a CI log, by whoever reads a file.

GitHub's runner takes a line that begins with ``::``, and any line that has ``##[`` in it, for a command.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from converter.cli import check, to_gguf, verify
from converter.report.printable import json_line, printable
from converter.verification import verdict
from fixtures.adapters import tiny_adapter
from fixtures.tiny import TinyModel
from fixtures.trainable import trainable
from tests.unit.conversion import metadata_of

BASE = TinyModel("llama")
EVIL = {
    "a new line": "x\n::error title=x::pwned",
    "a carriage return": "x\r::error::pwned",
    "the older command": "x ##[error]pwned",
    "Azure's": "x ##vso[task.setvariable variable=x]pwned",
    "words that wrap": "::error::pwned " * 40,
    "an escape": "x\x1b[2J\x1b]0;pwned\x07",
    "a C1 escape": "x\x9b2J",
    "right to left": "x\u202eevil\u2066",
    "a line separator": "x\u2028::error::pwned",
}
ACTED_UPON = re.compile(
    r"^\s*::\w|##\[|##vso\[|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", re.MULTILINE
)


@pytest.fixture(params=list(EVIL.values()), ids=list(EVIL))
def evil(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def edited(tmp_path: Path, **fields: object) -> Path:
    """An adapter whose config has these fields."""
    directory = tmp_path / "adapter"
    shutil.copytree(tiny_adapter("plain", BASE), directory)
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | fields), encoding="utf-8")
    return directory


def run(main: Any, *arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def is_safe(result: Result) -> bool:
    """Whether nothing in what was printed is acted upon; colours are taken out by the runner."""
    return bool(result.output.strip()) and not ACTED_UPON.search(result.stdout) and not ACTED_UPON.search(result.stderr)


@pytest.mark.parametrize("options", [[], ["--format", "json"]], ids=["text", "json"])
def test_a_field_of_the_config_is_shown(evil: str, options: list[str], tmp_path: Path) -> None:
    adapter = edited(tmp_path, **{evil: None, "target_modules": ["q_proj", evil]})
    for more in (["--dry-run"], ["-o", tmp_path / "x.gguf"]):
        assert is_safe(run(to_gguf.main, adapter, "--base", BASE.gguf, *options, *more))
    assert is_safe(run(check.main, adapter, "--base", BASE.gguf, *options))


@pytest.mark.parametrize("options", [[], ["--format", "json"]], ids=["text", "json"])
def test_a_fault_is_shown(evil: str, options: list[str], tmp_path: Path) -> None:
    adapter = edited(tmp_path, **{evil: 1, "base_model_name_or_path": evil, "peft_type": evil})
    for main in (check.main, to_gguf.main):
        result = run(main, adapter, "--base", BASE.gguf, *options)
        assert result.exit_code == 1
        assert is_safe(result)
    assert is_safe(run(to_gguf.main, adapter, *options))


def test_a_path_is_shown(evil: str, tmp_path: Path) -> None:
    adapter = tmp_path / evil.replace("/", "")[:200]
    for main in (check.main, to_gguf.main):
        assert is_safe(run(main, adapter, "--base", BASE.gguf))
    options = ("--base", BASE.hf, "--model", adapter)
    assert is_safe(run(verify.main, tiny_adapter("plain", BASE), *options))
    shutil.copytree(tiny_adapter("plain", BASE), adapter)
    assert is_safe(run(to_gguf.main, adapter, "--base", BASE.gguf, "-o", tmp_path / "x.gguf"))


def test_github_s_own_report_has_its_commands_and_no_others(evil: str, tmp_path: Path) -> None:
    result = run(check.main, edited(tmp_path, **{evil: 1}), "--base", BASE.gguf, "--format", "github")
    lines = result.stdout.splitlines()
    assert all(re.match(r"::(error|warning|notice) file=", line) for line in lines)
    assert not any(ACTED_UPON.search(line[2:]) for line in lines)


def test_json_says_what_was_there(evil: str, tmp_path: Path) -> None:
    assert json.loads(json_line({evil: [evil]})) == {evil: [evil]}
    data = json.loads(run(check.main, edited(tmp_path, **{evil: 1}), "--format", "json").stdout)
    assert any(evil in finding["where"] + finding["message"] for finding in data["adapters"][0]["findings"])


def test_nothing_is_lost_that_is_harmless() -> None:
    for text in ("model.layers.0.q_proj: rank 4", "C:\\models\\x", "##", "a: b", "ü 模型", "[::1]:8080", "std::vector"):
        assert printable(text).replace("\\", "") == text.replace("\\", "")


def test_a_verdict_is_made_of_printable_lines(monkeypatch: pytest.MonkeyPatch, evil: str) -> None:
    monkeypatch.setattr(verdict, "_first_line", lambda _: f"FAIL  {evil}")
    monkeypatch.setattr(verdict, "_rows", lambda _: [("figure", "value", "wanted", evil)])

    class Failed:
        failures = (evil,)

    assert not ACTED_UPON.search(verdict.verdict_text(Failed()))  # type: ignore[arg-type]  # all that is looked at


# --- What is written --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "written"),
    [
        ("/home/alice/secret-customer/base", "base"),
        ("C:\\Users\\alice\\models\\base\\", "base"),
        ("~/models/base", "base"),
        ("../base", "base"),
        ("org/base-135M", "org/base-135M"),
        ("base", "base"),
        ("/", "trained"),
        ("..", "trained"),
        ("x\ny", "trained"),
        ("", "trained"),
    ],
)
def test_no_path_of_whoever_saved_the_base_is_its_name(stated: str, written: str, tmp_path: Path) -> None:
    base = tmp_path / "trained"
    shutil.copytree(trainable(BASE), base)
    path = base / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | {"_name_or_path": stated}
    path.write_text(json.dumps(config), encoding="utf-8")
    options = ("--base", base, "--to", "model", "-o", tmp_path / "x.gguf")
    assert run(to_gguf.main, tiny_adapter("plain", BASE), *options).exit_code == 0
    assert metadata_of(tmp_path / "x.gguf")["general.name"] == written
