"""adapter-check under a policy: what is waived, for whom and until when, and what is said of it."""

import json
from datetime import date, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from converter.cli.check import main
from tests.rules.specimens import Specimen, head_lora, write_gguf

TODAY = date.today()  # noqa: DTZ011


@pytest.fixture
def it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Specimen:
    """An adapter with a LoRA on a tied head (HD001), in a repository one is in."""
    (tmp_path / ".git").mkdir()
    specimen = Specimen(tmp_path / "adapters" / "a", write_gguf(tmp_path / "base.gguf"))
    specimen.tensors |= head_lora()
    specimen.write()
    monkeypatch.chdir(tmp_path)
    return specimen


def check(*options: str) -> Result:
    return CliRunner().invoke(main, ["adapters", "--base", "base.gguf", *options])


def waive(**fields: object) -> None:
    """Write a policy with the baseline's waiver, changed."""
    assert check("--no-config", "--baseline-until", str(TODAY)).exit_code == 0
    path = Path("adapter-check.toml")
    lines = dict(line.split(" = ", 1) for line in path.read_text(encoding="utf-8").splitlines() if " = " in line)
    lines |= {name: str(value) if isinstance(value, date) else json.dumps(value) for name, value in fields.items()}
    path.write_text("[[waivers]]\n" + "".join(f"{name} = {value}\n" for name, value in lines.items()), encoding="utf-8")


def test_a_baseline_lets_the_gate_be_taken_up(it: Specimen) -> None:
    assert check().exit_code == 1
    ran = check("--baseline-until", str(TODAY))
    assert ran.exit_code == 0
    assert "1 waivers until" in ran.stderr
    ran = check()
    assert ran.exit_code == 0
    assert "adapter-to-gguf refuses by it: HD001" in " ".join(ran.stdout.split())
    it.config["typo"] = 3
    it.write()
    assert check().exit_code == 1


def test_one_byte_of_the_adapter_voids_its_waiver(it: Specimen) -> None:
    check("--baseline-until", str(TODAY))
    data = bytearray(it.weights.read_bytes())
    data[-1] ^= 1
    it.weights.write_bytes(data)
    ran = check()
    assert ran.exit_code == 1
    assert "waiver of HD001 for adapters/a: other bytes" in ran.stderr


@pytest.mark.usefixtures("it")
def test_a_waiver_ends() -> None:
    waive(expires=TODAY - timedelta(days=1))
    ran = check()
    assert ran.exit_code == 1
    assert "lapsed, it ended on" in ran.stderr


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"reason": ""}, "unusable, has no reason"),
        ({"expires": "soon"}, "unusable, expires on 'soon'"),
        ({"code": "HD002"}, "unused, no adapter"),
        ({"target": "vllm@0.32.0"}, "unusable, names the target"),
        ({"adapter": "0" * 64, "path": ""}, "unused, no adapter"),
    ],
)
@pytest.mark.usefixtures("it")
def test_what_waives_nothing_is_said(fields: dict[str, object], said: str) -> None:
    waive(**fields)
    ran = check()
    assert ran.exit_code == 1
    assert said in ran.stderr
    data = json.loads(check("--format", "json").stdout)
    assert data["policy"].endswith("adapter-check.toml")
    assert data["waivers"][0]["state"] == said.partition(",")[0]
    for style in ("markdown", "html", "github", "sarif"):
        assert said.partition(",")[0] in check("--format", style).stdout


@pytest.mark.usefixtures("it")
def test_severities_and_what_is_ignored() -> None:
    Path("adapter-check.toml").write_text('[severity]\nHD001 = "warning"\n', encoding="utf-8")
    assert check().exit_code == 0
    assert check("--strict").exit_code == 1
    assert check("--no-config").exit_code == 1
    data = json.loads(check("--format", "json").stdout)
    (report,) = data["adapters"]
    assert [finding["severity"] for finding in report["findings"] if finding["code"] == "HD001"] == ["warning"]
    assert "HD001" in report["deployments"][0]["blockers"], "adapter-to-gguf knows no policy"
    Path("adapter-check.toml").write_text('fail-on = "warning"\n[severity]\nHD001 = "warning"\n', encoding="utf-8")
    assert check().exit_code == 1
    Path("adapter-check.toml").write_text('ignore = ["HD"]\n', encoding="utf-8")
    assert check().exit_code == 0


def test_a_warning_can_be_made_an_error(it: Specimen) -> None:
    it.tensors = {key: value for key, value in it.tensors.items() if "lm_head" not in key}
    it.config["megatron_core"] = "mine.core"
    it.write()
    assert check().exit_code == 0
    Path("adapter-check.toml").write_text('[severity]\nSC003 = "error"\n', encoding="utf-8")
    ran = check("--format", "json")
    assert ran.exit_code == 1
    assert json.loads(ran.stdout)["adapters"][0]["deployments"][0]["blockers"] == []


@pytest.mark.usefixtures("it")
def test_limits_are_by_path() -> None:
    policy = 'ignore = ["HD"]\n[limits]\nrank = 3\n[[by-path]]\npath = "adapters/*"\nlimits = { rank = 4 }\n'
    Path("adapter-check.toml").write_text(policy, encoding="utf-8")
    assert check().exit_code == 0
    Path("adapter-check.toml").write_text(policy.replace("adapters/*", "others/*"), encoding="utf-8")
    assert check().exit_code == 1


@pytest.mark.usefixtures("it")
def test_exit_zero_reports_and_does_not_fail() -> None:
    ran = check("--exit-zero")
    assert ran.exit_code == 0
    assert "HD001" in ran.stdout
    assert CliRunner().invoke(main, ["missing", "--exit-zero"]).exit_code == 3


@pytest.mark.usefixtures("it")
def test_a_policy_that_can_not_be_used_ends_the_run() -> None:
    Path("adapter-check.toml").write_text("ignore = 3", encoding="utf-8")
    ran = check()
    assert ran.exit_code == 2
    assert "ignore is 3, wanted a list" in ran.stderr
    assert check("--config", "missing.toml").exit_code == 2


@pytest.mark.usefixtures("it")
def test_a_baseline_keeps_the_policy_that_is_there() -> None:
    before = "# ours\n[limits]\nrank = 8\n"
    Path("pyproject.toml").write_text("[tool.adapter-check]\nignore = []\n", encoding="utf-8")
    assert check("--baseline-until", str(TODAY)).exit_code == 0
    assert "[[tool.adapter-check.waivers]]" in Path("pyproject.toml").read_text(encoding="utf-8")
    assert check().exit_code == 0
    Path("adapter-check.toml").write_text(before, encoding="utf-8")
    assert check("--baseline-until", str(TODAY)).exit_code == 0
    assert Path("adapter-check.toml").read_text(encoding="utf-8").startswith(before)
    assert check().exit_code == 0
    ran = check("--baseline-until", "2020-01-01")
    assert ran.exit_code == 2
    assert "is over already" in ran.stderr


def test_an_adapter_does_not_bring_the_base_that_clears_its_head(it: Specimen) -> None:
    untied = write_gguf(it.directory / "untied.gguf", tied=False)
    it.config["base_model_name_or_path"] = str(untied)
    it.write()
    ran = CliRunner().invoke(main, ["adapters"])
    assert ran.exit_code == 1
    assert "PO006" in ran.stdout
    assert "which the adapter names" in " ".join(ran.stdout.split())
    assert CliRunner().invoke(main, ["adapters", "--base", str(untied)]).exit_code == 0
    Path("adapter-check.toml").write_text("[limits]\ntrust-named-base = true\n", encoding="utf-8")
    assert CliRunner().invoke(main, ["adapters"]).exit_code == 0
    it.config["base_model_name_or_path"] = str(it.base)  # that its own word convicts it is another matter
    it.write()
    assert CliRunner().invoke(main, ["adapters"]).exit_code == 1
