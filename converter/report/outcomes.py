"""What a run over several paths comes to: a report each, or the reason why there is none, and one exit status."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from converter.diagnostics import Finding, Report, Rule, Severity, Skipped, TargetCheck
from converter.errors import FINE, JUDGED_BAD, Status, worst
from converter.rules import RULES

if TYPE_CHECKING:
    from converter.policy import WaiverUse
    from converter.read.hub_address import Address


class Unread(NamedTuple):
    """A path that could not be judged, and why."""

    path: "Path | Address"
    status: Status
    message: str


Outcome = Report | Unread


class Run(NamedTuple):
    """All outcomes of a run, and how they are looked at. ``width`` is that of lines for people.

    ``policy`` is the file whose settings and waivers were applied, ``waivers`` what each of those did.
    """

    outcomes: Sequence[Outcome]
    strict: bool = False
    width: int = 80
    policy: Path | None = None
    waivers: "Sequence[WaiverUse]" = ()

    @property
    def statuses(self) -> list[Status]:
        """The exit status of each outcome."""
        return [status_of(outcome, strict=self.strict) for outcome in self.outcomes]

    @property
    def status(self) -> Status:
        """The exit status of the run."""
        return worst(self.statuses)

    @property
    def idle_waivers(self) -> "Sequence[WaiverUse]":
        """The waivers that did nothing, and so are to be looked at."""
        return [use for use in self.waivers if use.state != "used"]


def status_of(outcome: Outcome, *, strict: bool = False) -> Status:
    """The exit status of one outcome. Strict: warnings count, and so do rules that could not be applied."""
    match outcome:
        case Unread(status=status):
            return status
        case Report() if not outcome.passed or (strict and _is_doubtful(outcome)):
            return JUDGED_BAD
        case _:
            return FINE


Verdict = Literal["refused", "doubtful", "fine"]


def verdict_of(report: Report, *, strict: bool) -> Verdict:
    """What comes of one adapter: doubtful is what passes, but not by --strict."""
    if not report.passed:
        return "refused"
    return "fine" if status_of(report, strict=strict) == FINE else "doubtful"


def _is_doubtful(report: Report) -> bool:
    warned = any(finding.severity is Severity.WARNING for finding in report.findings if concerns(report, finding))
    return warned or any(not skip.by_choice for skip in report.skipped if concerns(report, skip))


def concerns(report: Report, told: Finding | Skipped) -> bool:
    """Whether it is about what was asked for: rules about GGUFs alone say nothing to a server of PEFT's directory."""
    return report.asks_gguf or not told.gguf


def rules_asked(report: Report) -> Sequence[Rule]:
    """The rules that a report has an answer to: those about servers only where one was asked for."""
    return [rule for rule in RULES if report.targets or not isinstance(rule.check, TargetCheck)]


# How CI systems call a finding: an error stops what was asked for, a notice something else.
Level = Literal["error", "warning", "notice"]


def level_of(report: Report, finding: Finding) -> Level:
    """How much a finding matters for what was asked for."""
    if finding.severity is Severity.WARNING:
        return "warning"
    return "error" if report.is_stopped_by(finding) else "notice"
