"""``--format json``: one line for every command and every exit status, as the published schemas have it."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from converter.cli import check, fleet, to_gguf, train, verify
from tests.rules.specimens import Specimen, head_lora
from tests.unit.conversion import write_base
from tests.unit.schemas import faults

COMMANDS: dict[str, click.Command] = {
    "adapter-check": check.main,
    "adapter-fleet": fleet.main,
    "adapter-to-gguf": to_gguf.main,
    "adapter-train": train.main,
    "adapter-verify": verify.main,
}


@pytest.fixture(autouse=True)
def specimen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter with a trained head over a tied base, in the current directory."""
    monkeypatch.chdir(tmp_path)
    it = Specimen(Path("adapter"), write_base(Path("base.gguf")))
    it.tensors |= head_lora()
    it.write()
    Path("none.csv").write_text("adapter,output\n", encoding="utf-8")
    Path("missing.csv").write_text("adapter,base,output\nnowhere,base.gguf,x.gguf\n", encoding="utf-8")
    Path("failed.csv").write_text("adapter,base,output\nadapter,nowhere.gguf,x.gguf\n", encoding="utf-8")


def printed(command: str, *options: str) -> tuple[int, dict[str, Any]]:
    ran = CliRunner().invoke(COMMANDS[command], [*options, "--format", "json"])
    (line,) = ran.stdout.splitlines()
    data: dict[str, Any] = json.loads(line)
    assert data["tool"] == command
    assert data["status"] == ran.exit_code
    return ran.exit_code, data


@pytest.mark.parametrize(
    ("command", "options", "status", "schema"),
    [
        ("adapter-check", ["adapter", "--base", "base.gguf", "--untie"], 0, "report"),
        ("adapter-check", ["adapter", "--base", "base.gguf"], 1, "report"),
        ("adapter-check", ["adapter", "--base", "nowhere.gguf"], 2, "report"),
        ("adapter-check", ["nowhere"], 3, "report"),
        ("adapter-check", ["adapter", "--config", "nowhere.toml"], 2, "ended"),
        ("adapter-check", ["adapter", "--attest", "nowhere/a.jsonl"], 2, "ended"),
        ("adapter-check", ["adapter", "--select", "XX"], 2, "ended"),
        ("adapter-check", [], 2, "ended"),
        ("adapter-to-gguf", ["adapter", "--base", "base.gguf", "--untie"], 0, "conversion"),
        ("adapter-to-gguf", ["adapter", "--base", "base.gguf", "--untie", "--dry-run"], 0, "conversion"),
        ("adapter-to-gguf", ["adapter", "--base", "base.gguf"], 1, "ended"),
        ("adapter-to-gguf", ["adapter", "--base", "nowhere.gguf"], 2, "ended"),
        ("adapter-to-gguf", ["adapter", "--outtype", "q9"], 2, "ended"),
        ("adapter-to-gguf", ["nowhere"], 3, "ended"),
        ("adapter-fleet", ["nowhere.csv"], 2, "ended"),
        ("adapter-fleet", ["base.gguf"], 2, "ended"),
        ("adapter-fleet", ["none.csv"], 3, "ended"),
        ("adapter-fleet", ["missing.csv"], 3, "fleet"),
        ("adapter-fleet", ["failed.csv"], 2, "fleet"),
        ("adapter-train", ["--base", "nowhere", "--data", "nowhere", "--output", "trained"], 2, "ended"),
        ("adapter-train", ["--config", "nowhere.toml"], 2, "ended"),
        ("adapter-train", ["--head", "none"], 2, "ended"),
        ("adapter-verify", ["adapter", "--base", "base.gguf"], 2, "ended"),
        ("adapter-verify", ["nowhere", "--base", "base.gguf", "--model", "x.gguf"], 3, "ended"),
        ("adapter-verify", ["adapter"], 2, "ended"),
    ],
)
def test_every_end_is_one_line(command: str, options: list[str], status: int, schema: str) -> None:
    found, data = printed(command, *options)
    assert found == status
    assert faults(schema, data) == []
    assert (data["error"] is not None) == (schema == "ended")
    assert faults(schema, {**data, "version": 2})
    assert faults(schema, {**data, "error": "a text"})


def test_a_refusal_brings_the_judgement_and_the_remedy() -> None:
    _, data = printed("adapter-to-gguf", "adapter", "--base", "base.gguf")
    (finding,) = data["judgement"]["findings"]
    assert finding["code"] == "HD001"
    assert "--untie" in finding["remedy"]
    assert finding["help_uri"].endswith("docs/rules.md#hd001")
    assert data["error"]["message"] == "adapter: refused for --to lora: HD001"


def test_a_wrong_option_names_the_help() -> None:
    _, data = printed("adapter-to-gguf", "adapter", "--nonsense")
    assert data["error"] == {
        "message": "No such option '--nonsense'.",
        "remedy": "adapter-to-gguf --help has the options",
    }


def test_people_get_the_line_too() -> None:
    ran = CliRunner().invoke(to_gguf.main, ["nowhere", "--format=json"])
    assert json.loads(ran.stdout)["error"]["message"] in ran.stderr


def test_without_json_nothing_is_on_stdout() -> None:
    for options in (["nowhere"], ["adapter", "--base", "base.gguf"], ["adapter", "--format", "xml"]):
        assert CliRunner().invoke(to_gguf.main, options).stdout == ""
