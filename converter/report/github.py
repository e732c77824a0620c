"""The report as GitHub workflow commands: annotations on the adapter's files.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from converter.diagnostics import Finding, Report, Severity
from converter.read.checkpoint import CONFIG_NAME, SAFETENSORS_NAME
from converter.report.outcomes import Outcome, Unread
from converter.report.printable import printable

_CONFIG_FAMILY: Final = "CF"


def github_report(outcomes: Sequence[Outcome]) -> str:
    """One workflow command a line, for every outcome of a run."""
    return "".join(f"{line}\n" for outcome in outcomes for line in _lines(outcome))


def _lines(outcome: Outcome) -> Iterator[str]:
    match outcome:
        case Unread(path, _, message):
            yield _command("error", path, "adapter-check", message)
        case Report():
            for finding in outcome.findings:
                yield _finding_line(outcome, finding, _level(outcome, finding))
            for finding in outcome.hidden:
                yield _finding_line(outcome, finding, "notice")
            if outcome.skipped:
                codes = ", ".join(skip.code for skip in outcome.skipped)
                yield _command("notice", outcome.path, "rules not applied", codes)


def _finding_line(report: Report, finding: Finding, level: str) -> str:
    name = CONFIG_NAME if finding.code.startswith(_CONFIG_FAMILY) else SAFETENSORS_NAME
    title = f"{finding.code} {finding.name}"
    return _command(level, report.path / name, title, f"{finding.where}: {finding.message}")


def _level(report: Report, finding: Finding) -> str:
    """A notice is what forbids other deployments than the one asked for."""
    if finding.severity is Severity.WARNING:
        return "warning"
    return "error" if finding.stops(report.deployment) else "notice"


def _command(level: str, path: Path, title: str, message: str) -> str:
    return f"::{level} file={_property(str(path))},title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return printable(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
