"""Machines' formats through the command: each is read by an independent reader, and says what the command says."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from jsonschema import Draft4Validator
from junitparser import JUnitXml

from converter.cli.check import main
from converter.report.formats import FORMATS
from converter.version import REPOSITORY
from tests.rules.specimens import Specimen, tensor, write_gguf
from tests.unit.schemas import faults

SCHEMA = json.loads((Path(__file__).parent / "sarif-schema-2.1.0.json").read_text(encoding="utf-8"))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Ten adapters in a repository: fine ones, some with a LoRA on a tied head, one that can't be read as any."""
    (tmp_path / ".git").mkdir()
    base = write_gguf(tmp_path / "base.gguf")
    for number in range(10):
        it = Specimen(tmp_path / "adapters" / f"a {number}", base)
        if number % 2:
            it.config["typo"] = number
        it.write()
        it.config_path.write_text(json.dumps(json.loads(it.config_path.read_text(encoding="utf-8")), indent=2))
    return tmp_path


def check(*arguments: str | Path, here: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from converter.cli.check import main; main()", *map(str, arguments)]
    return subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def written(repository: Path) -> dict[str, str]:
    options = [option for name in FORMATS for option in ("--format", f"{name}=report.{name}")]
    ran = check("adapters", "missing", "--base", "base.gguf", *options, here=repository)
    assert ran.returncode == 3, ran.stderr
    assert "11 looked at" in ran.stdout
    return {name: (repository / f"report.{name}").read_text(encoding="utf-8") for name in FORMATS}


def test_every_format_is_written_in_one_run(written: dict[str, str]) -> None:
    assert {name for name, text in written.items() if text} == set(FORMATS)
    assert "CF004" in written["text"]
    assert "\x1b" not in written["text"]


def test_sarif_keeps_to_the_standard(written: dict[str, str]) -> None:
    log = json.loads(written["sarif"])
    assert list(Draft4Validator(SCHEMA).iter_errors(log)) == []
    (run,) = log["runs"]
    assert run["invocations"][0]["executionSuccessful"] is False
    results = run["results"]
    assert {result["ruleId"] for result in results} == {"CF004"}
    (rule,) = run["tool"]["driver"]["rules"]
    assert rule["id"] == "CF004"
    assert rule["helpUri"] == f"{REPOSITORY}/blob/main/docs/rules.md#cf004"
    place = results[0]["locations"][0]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "adapters/a%201/adapter_config.json"
    assert place["logicalLocations"][0]["fullyQualifiedName"] == "typo"


def test_json_keeps_to_its_published_schema(written: dict[str, str]) -> None:
    data = json.loads(written["json"])
    assert faults("report", data) == []
    assert faults("report", {**data, "adapters": [{**data["adapters"][0], "passed": "yes"}]})


def test_the_line_is_that_of_the_field(repository: Path, written: dict[str, str]) -> None:
    result = json.loads(written["sarif"])["runs"][0]["results"][0]
    line = result["locations"][0]["physicalLocation"]["region"]["startLine"]
    config = (repository / "adapters" / "a 1" / "adapter_config.json").read_text(encoding="utf-8")
    assert '"typo"' in config.splitlines()[line - 1]


def test_fingerprints_do_not_depend_on_where_the_run_starts(repository: Path, written: dict[str, str]) -> None:
    adapters = repository / "adapters"
    ran = check(".", "--base", repository / "base.gguf", "--format", "sarif=../again", here=adapters)
    assert ran.returncode == 1
    again = (repository / "again").read_text(encoding="utf-8")
    assert fingerprints(again) == fingerprints(written["sarif"])
    assert len(set(fingerprints(again))) == 5


def fingerprints(log: str) -> list[str]:
    results: list[dict[str, Any]] = json.loads(log)["runs"][0]["results"]
    return sorted(result["partialFingerprints"]["adapterCheck/v1"] for result in results)


def test_junit_is_read_by_its_reader(written: dict[str, str]) -> None:
    suites = list(JUnitXml.fromstring(written["junit"].encode()))
    assert len(suites) == 11
    assert sum(suite.failures for suite in suites) == 5
    assert sum(suite.errors for suite in suites) == 1
    failed = [case for suite in suites for case in suite if not case.is_passed and not case.is_skipped]
    assert {case.name.split()[0] for case in failed} == {"CF004", "read"}
    assert all(case.result for case in failed)


def test_gitlab_issues_have_what_gitlab_wants(written: dict[str, str]) -> None:
    issues = json.loads(written["gitlab"])
    assert len(issues) == 6
    for issue in issues:
        assert set(issue) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert issue["severity"] in {"info", "minor", "major", "critical", "blocker"}
        assert issue["location"]["lines"]["begin"] >= 1
        assert not Path(issue["location"]["path"]).is_absolute()
    assert len({issue["fingerprint"] for issue in issues}) == 6


def test_annotations_are_ten_at_most(repository: Path) -> None:
    it = Specimen(repository / "many", repository / "base.gguf")
    it.tensors |= {f"unknown.{number}": tensor(2, 3) for number in range(252)}
    it.write()
    ran = check("many", "adapters", "--base", "base.gguf", "--format", "github", here=repository)
    lines = ran.stdout.splitlines()
    assert 1 < len(lines) <= 10
    assert "(and 251 more of LO004)" in lines[0]
    assert lines[0].startswith("::error file=many/adapter_model.safetensors,title=LO004 ")
    assert lines[-1].startswith("::")


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened += [] if tag in {"meta", "link"} else [tag]
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "action", "srcset"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(written: dict[str, str]) -> None:
    page = _Page()
    page.feed(written["html"])
    assert page.opened == []
    # An icon that a browser doesn't ask for, and what only a reader follows.
    assert set(page.links) == {"data:,", f"{REPOSITORY}/blob/main/docs/rules.md#cf004"}
    assert "url(" not in written["html"]
    assert "norm of the delta" in written["html"]


HOSTILE = '<script>alert(1)</script>"|`x`\n::error::\x1b[31m'


@pytest.mark.parametrize("name", FORMATS)
def test_what_files_say_acts_nowhere(name: str, tmp_path: Path) -> None:
    it = Specimen(tmp_path / "a", write_gguf(tmp_path / "base.gguf"))
    it.config[HOSTILE] = 1
    it.write()
    ran = CliRunner().invoke(main, [str(it.directory), "--base", str(it.base), "--format", name])
    assert ran.exit_code == 1
    assert "script" in ran.stdout
    assert "\x1b" not in ran.stdout
    if name in {"html", "junit"}:
        assert "<script>" not in ran.stdout
    if name == "markdown":
        assert "`` " in ran.stdout
    assert not any(line.lstrip().startswith("::error::") for line in ran.stdout.splitlines())


# --- The option ------------------------------------------------------------------------------------------------------


def arguments(it: Specimen) -> list[str]:
    return [str(it.directory), "--base", str(it.base)]


@pytest.fixture
def adapter(tmp_path: Path) -> Iterator[Specimen]:
    it = Specimen(tmp_path / "a", write_gguf(tmp_path / "base.gguf"))
    it.write()
    here = Path.cwd()
    os.chdir(tmp_path)
    yield it
    os.chdir(here)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "xml"], "no format 'xml'; there are text, json, sarif"),
        (["--format", "json="], "json= names no file"),
        (["--format", "json", "--format", "sarif"], "can't both go to standard output; give sarif=FILE"),
        (["--format", "json=x", "--format", "sarif=x"], "can't both go to x"),
        (["--format", "json=x", "--format", "sarif=./y/../x"], "can't both go to ./y/../x"),
    ],
)
def test_a_format_that_can_not_be_is_a_wrong_option(adapter: Specimen, options: list[str], message: str) -> None:
    ran = CliRunner().invoke(main, [*arguments(adapter), *options])
    assert ran.exit_code == 2
    assert message in " ".join(ran.stderr.split())


def test_people_are_told_whatever_goes_to_files(adapter: Specimen) -> None:
    ran = CliRunner().invoke(main, [*arguments(adapter), "--format", "json=report.json"])
    assert ran.stdout.startswith(f"{adapter.directory}: fine")
    assert json.loads(Path("report.json").read_text(encoding="utf-8"))["status"] == 0


def test_a_report_replaces_a_report_and_no_input(adapter: Specimen) -> None:
    Path("report.json").write_text("{}", encoding="utf-8")
    assert CliRunner().invoke(main, [*arguments(adapter), "--format", "json=report.json"]).exit_code == 0
    for file in (adapter.directory / "adapter_config.json", adapter.base):
        before = Path(str(file)).read_bytes()
        ran = CliRunner().invoke(main, [*arguments(adapter), "--format", f"json={file}"])
        assert ran.exit_code == 2
        assert "is there already, among the files that were judged" in ran.stderr
        assert Path(str(file)).read_bytes() == before


def test_a_report_that_can_not_be_written_is_said(adapter: Specimen) -> None:
    ran = CliRunner().invoke(main, [*arguments(adapter), "--format", "json=missing/report.json"])
    assert ran.exit_code == 2
    assert "missing/report.json" in ran.stderr
