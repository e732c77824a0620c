"""What a run over several paths comes to: a report each, or the reason why there is none, and one exit status."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from converter.diagnostics import Report, Severity
from converter.errors import FINE, JUDGED_BAD, Status, worst


class Unread(NamedTuple):
    """A path that could not be judged, and why."""

    path: Path
    status: Status
    message: str


Outcome = Report | Unread


def status_of(outcome: Outcome, *, strict: bool = False) -> Status:
    """The exit status of one outcome. Strict: warnings count, and so do rules that could not be applied."""
    match outcome:
        case Unread(status=status):
            return status
        case Report() if not outcome.passed or (strict and _is_doubtful(outcome)):
            return JUDGED_BAD
        case _:
            return FINE


def status_of_all(outcomes: Sequence[Outcome], *, strict: bool = False) -> Status:
    """The worst exit status of all outcomes."""
    return worst([status_of(outcome, strict=strict) for outcome in outcomes])


def _is_doubtful(report: Report) -> bool:
    warned = any(finding.severity is Severity.WARNING for finding in report.findings)
    return warned or any(not skip.by_choice for skip in report.skipped)
