"""The report as GitHub workflow commands: annotations on the adapter's files, what is of one kind in one.

GitHub shows ten of a level in one step, and passes over the others without a word:
https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from converter.diagnostics import Finding, Report
from converter.read.hub_address import Address
from converter.report.locations import Location, Locations, relative
from converter.report.outcomes import Level, Outcome, Run, Unread, level_of
from converter.report.printable import printable

_MOST: Final = 10
_LEVELS: Final[tuple[Level, ...]] = ("error", "warning", "notice")


class _Annotation(NamedTuple):
    level: Level
    path: Path | Address
    line: int | None
    title: str
    message: str


def render(run: Run) -> str:
    """One workflow command a line, the gravest first, at most ten."""
    annotations = [annotation for outcome in run.outcomes for annotation in _annotations(outcome)]
    annotations += [
        _Annotation("warning", run.policy, None, "waiver", str(use)) for use in run.idle_waivers if run.policy
    ]
    annotations.sort(key=lambda annotation: _LEVELS.index(annotation.level))
    shown = annotations if len(annotations) <= _MOST else [*annotations[: _MOST - 1], _rest(annotations[_MOST - 1 :])]
    return "".join(f"{_command(annotation)}\n" for annotation in shown)


def _annotations(outcome: Outcome) -> Iterator[_Annotation]:
    match outcome:
        case Unread(path, _, message):
            yield _Annotation("error", path, None, "adapter-check", message)
        case Report():
            yield from _of_findings(outcome, outcome.findings)
            yield from (found._replace(level="notice") for found in _of_findings(outcome, outcome.hidden))
            if outcome.skipped:
                codes = ", ".join(skip.code for skip in outcome.skipped)
                yield _Annotation("notice", outcome.path, None, "rules not applied", codes)


def _of_findings(report: Report, findings: Sequence[Finding]) -> Iterator[_Annotation]:
    locate = Locations(report.path)

    def kind(finding: Finding) -> tuple[str, Level, str]:
        return finding.code, level_of(report, finding), str(locate(finding).path)

    for (_, level, _), group in groupby(sorted(findings, key=kind), kind):
        first, *others = group
        yield _annotation(level, first, locate(first), len(others))


def _annotation(level: Level, first: Finding, location: Location, n_others: int) -> _Annotation:
    more = f" (and {n_others} more of {first.code})" if n_others else ""
    message = f"{first.where}: {first.message}{more}"
    return _Annotation(level, location.path, location.line, f"{first.code} {first.name}", message)


def _rest(left_out: Sequence[_Annotation]) -> _Annotation:
    titles = ", ".join(dict.fromkeys(annotation.title for annotation in left_out))
    first = left_out[0]
    return _Annotation(first.level, first.path, None, f"and {len(left_out)} more", f"{titles}; the log has them all")


def _command(annotation: _Annotation) -> str:
    line = f",line={annotation.line}" if annotation.line else ""
    where = f"file={_property(relative(annotation.path))}{line},title={_property(annotation.title)}"
    return f"::{annotation.level} {where}::{_data(annotation.message)}"


def _data(text: str) -> str:
    return printable(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
