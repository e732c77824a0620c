"""What golden cases don't show: other widths, hostile text, colours, and machines' formats."""

import json
import time
from pathlib import Path

import click
import pytest

from converter.diagnostics import EVERY, Deployment, Finding, Kind, Report, Severity, Skipped
from converter.report.documentation import documentation, explanation, rule_named
from converter.report.formats import rendered
from converter.report.locations import Locations
from converter.report.outcomes import Outcome, Run, Unread, status_of
from converter.report.printable import printable
from converter.report.text import text_report, text_summary
from converter.rules import RULES

HOSTILE = "a\x1b[31m\r\n::error::b%0A,:\u202e\ud800"


def finding(code: str = "HD001", where: str = "key", severity: Severity = Severity.ERROR) -> Finding:
    rule = rule_named(code)
    assert rule
    is_error = severity is Severity.ERROR
    return Finding(code, rule.name, severity, where, "is wrong", EVERY if is_error else frozenset(), is_error)


def report(*findings: Finding, skipped: tuple[Skipped, ...] = (), path: str = "adapter") -> Report:
    return Report(Path(path), "base.gguf", Deployment(), findings, skipped)


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_prose_keeps_to_the_width(width: int) -> None:
    text = click.unstyle(text_report(report(finding()), width))
    assert all(len(line) <= width for line in text.splitlines())


def test_a_fault_in_every_layer_is_told_once() -> None:
    text = text_report(report(*(finding(where=f"layer-{i}") for i in range(127))))
    assert "layer-2" in text
    assert "layer-3" not in text
    assert "... and 124 more" in text
    assert text.count("Why:") == 1


def test_text_from_files_can_not_act_on_the_terminal() -> None:
    text = click.unstyle(text_report(report(finding(where=HOSTILE), path=HOSTILE)))
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "\\x1b[31m" in text


def test_text_of_our_own_is_ascii() -> None:
    assert text_report(report(*(finding(rule.code) for rule in RULES))).isascii()
    assert all(explanation(rule, 80).isascii() for rule in RULES)


def test_verdicts_are_coloured_and_plain_without_colours() -> None:
    assert "\x1b[" in text_report(report())
    assert click.unstyle(text_report(report())).startswith("adapter: fine for --to lora\n")


def test_escapes_are_those_of_python() -> None:
    assert printable("a\tb\x00\ud800ü") == "a\\tb\\x00\\ud800ü"


def test_annotations_are_one_line_each_and_can_not_be_forged() -> None:
    outcomes: list[Outcome] = [report(finding(where=HOSTILE), path="a,b:c"), Unread(Path("x\ny"), 2, HOSTILE)]
    lines = rendered("github", Run(outcomes)).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("::error file=a%2Cb%3Ac/adapter_model.safetensors,title=HD001 ")
    assert all(line.count("%0A") == 0 for line in lines)


def test_annotations_have_the_weight_of_their_findings() -> None:
    warning = finding("SC003", severity=Severity.WARNING)
    elsewhere = finding("BM040")._replace(blocks=frozenset[Kind]({"model"}))
    lines = rendered("github", Run([report(finding("CF001"), warning, elsewhere)])).splitlines()
    assert [line.split()[0] for line in lines] == ["::error", "::warning", "::notice"]
    assert "adapter_config.json" in lines[0]


def test_json_is_one_line_whatever_it_holds() -> None:
    text = rendered("json", Run([report(finding(where=HOSTILE)), Unread(Path("x"), 3, "gone")]))
    assert text.index("\n") == len(text) - 1
    data = json.loads(text)
    assert data["status"] == 3
    assert data["adapters"][0]["findings"][0]["where"] == HOSTILE
    assert set(data) == {
        "version",
        "tool",
        "tool_version",
        "status",
        "error",
        "adapters",
        "unread",
        "policy",
        "waivers",
    }


def test_status() -> None:
    warned = report(finding("SC003", severity=Severity.WARNING))
    skipped = report(skipped=(Skipped("NM001", "non-finite", "reads the numbers (--headers-only)"),))
    chosen = report(skipped=(Skipped("NM001", "non-finite", "left out", by_choice=True),))
    assert [status_of(one) for one in (report(), warned, skipped, chosen, report(finding()))] == [0, 0, 0, 0, 1]
    assert [status_of(one, strict=True) for one in (report(), warned, skipped, chosen)] == [0, 1, 1, 0]
    assert Run([report(finding()), Unread(Path("x"), 3, "")]).status == 3
    assert Run([Unread(Path("x"), 2, ""), Unread(Path("x"), 3, "")]).status == 2
    assert Run([]).status == 3


def test_a_summary_counts_each_status() -> None:
    outcomes: list[Outcome] = [report(), report(finding()), Unread(Path("x"), 2, ""), Unread(Path("y"), 3, "")]
    assert text_summary(Run(outcomes).statuses) == "4 looked at: 1 fine, 1 refused, 1 could not be read, 1 not found"


def test_rules_are_found_by_code_and_name() -> None:
    assert (
        rule_named("hd001") == rule_named("lm-head-lora-on-tied-base") == RULES[[r.code for r in RULES].index("HD001")]
    )
    assert rule_named("nothing") is None


def test_documentation_is_taken_apart() -> None:
    rule = rule_named("ST007")
    assert rule
    text = documentation(rule)
    assert text.summary.startswith("A weight file is a Git LFS pointer")
    assert text.why.startswith("the weights were never downloaded")
    assert "git lfs pull" in text.what_to_do


def test_a_config_of_spaces_is_looked_through_in_no_time(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(" " * 1_000_000, encoding="utf-8")
    begin = time.process_time()
    assert Locations(tmp_path)(finding("CF002")).line == 1
    assert time.process_time() - begin < 1
