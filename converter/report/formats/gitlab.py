"""The report for GitLab's code quality widget: https://docs.gitlab.com/ci/testing/code_quality/."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Final

from converter.diagnostics import Report
from converter.report.locations import Locations, fingerprint, relative
from converter.report.outcomes import Outcome, Run, Unread, level_of
from converter.report.printable import json_line, printable

_SEVERITIES: Final = {"error": "blocker", "warning": "minor", "notice": "info"}


def render(run: Run) -> str:
    """The findings of a run, and what could not be judged, as one JSON array."""
    return json_line([issue for outcome in run.outcomes for issue in _issues(outcome)]) + "\n"


def _issues(outcome: Outcome) -> Iterator[dict[str, Any]]:
    match outcome:
        case Unread(path, _, message):
            where = relative(path)
            yield _issue(
                "unread",
                message,
                "blocker",
                sha256(f"unread\0{where}".encode(errors="backslashreplace")).hexdigest()[:32],
                (where, 1),
            )
        case Report(findings=findings):
            locate = Locations(outcome.path)
            for finding in findings:
                path, line, where = locate(finding)
                name, text = f"{finding.code} {finding.name}", f"{where}: {finding.message}"
                severity = _SEVERITIES[level_of(outcome, finding)]
                yield _issue(name, text, severity, fingerprint(outcome.path, finding), (relative(path), line or 1))


def _issue(name: str, text: str, severity: str, fingerprint: str, place: tuple[str, int]) -> dict[str, Any]:
    path, line = place
    return {
        "description": printable(f"{name}: {text}"),
        "check_name": name,
        "fingerprint": fingerprint,
        "severity": severity,
        "location": {"path": path, "lines": {"begin": line}},
    }
