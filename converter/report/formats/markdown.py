"""The report as Markdown: a comment on a merge request, or the summary of a job.

What comes from files stands between backticks, where it can be no link, no image, no mention and no HTML.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from converter.diagnostics import OPTIONS, Finding, Report
from converter.report.commands import command
from converter.report.documentation import documentation, rule_named
from converter.report.outcomes import Outcome, Run, Unread, Verdict, level_of, verdict_of
from converter.report.printable import printable
from converter.report.text import text_summary

_N_SHOWN: Final = 3  # of one rule's findings


def render(run: Run) -> str:
    """All outcomes of a run, a section each."""
    sections = ["\n\n".join(_section(outcome, strict=run.strict)) for outcome in run.outcomes]
    summary = [text_summary(run.statuses)] if len(run.outcomes) > 1 else []
    waivers = ["\n".join(f"- {_code(str(use))}" for use in run.idle_waivers)] if run.idle_waivers else []
    return "\n\n".join(("# adapter-check", *summary, *sections, *waivers)) + "\n"


def _section(outcome: Outcome, *, strict: bool) -> Iterator[str]:
    match outcome:
        case Unread(path, _, message):
            yield f"## :no_entry: {_code(str(path))} could not be judged"
            yield _code(message)
        case Report():
            yield f"## {_verdict(outcome, strict=strict)}"
            if outcome.findings:
                yield "\n".join(("| | rule | found |", "|---|---|---|", *_rows(outcome)))
                yield from (_advice(code) for code in dict.fromkeys(finding.code for finding in outcome.findings))
            if outcome.targets:
                yield "\n".join(("| target | |", "|---|---|", *_targets(outcome)))
            if outcome.base and (outcome.asks_gguf or not outcome.passed):
                yield "\n".join(("| deployment | |", "|---|---|", *_deployments(outcome)))
            if outcome.skipped:
                yield f"Not applied: {', '.join(skip.code for skip in outcome.skipped)}"


_VERDICTS: Final[Mapping[Verdict, str]] = {
    "refused": ":x: {} is refused for {}",
    "doubtful": ":warning: {} is fine, but not by `--strict`, for {}",
    "fine": ":white_check_mark: {} is fine for {}",
}


def _verdict(report: Report, *, strict: bool) -> str:
    verdict = verdict_of(report, strict=strict)
    of = report.refused if verdict == "refused" else report.asked
    return _VERDICTS[verdict].format(_code(str(report.path)), ", ".join(map(_code, of)))


def _rows(report: Report) -> Iterator[str]:
    def kind(finding: Finding) -> tuple[str, str]:
        return finding.code, level_of(report, finding)

    for (code, level), group in groupby(report.findings, kind):
        findings = [*group]
        yield f"| {level} | {code} {findings[0].name} | {_found(findings)} |"


def _found(findings: Sequence[Finding]) -> str:
    lines = [_code(f"{finding.where}: {finding.message}") for finding in findings[:_N_SHOWN]]
    more = [f"and {len(findings) - _N_SHOWN} more"] if len(findings) > _N_SHOWN else []
    return "<br>".join((*lines, *more))


def _advice(code: str) -> str:
    rule = rule_named(code)
    return f"**{code}**: {documentation(rule).what_to_do}" if rule else ""


def _targets(report: Report) -> Iterator[str]:
    for target in report.targets:
        codes = ", ".join(dict.fromkeys(finding.code for finding in report.stopping_target(target)))
        told = (target.note, target.needs if not codes else "")
        answer = "<br>".join((f"no: {codes}" if codes else "yes, exactly", *(_code(text) for text in told if text)))
        yield f"| {_code(target.name)} ({target.evidence}) | {answer} |"


def _deployments(report: Report) -> Iterator[str]:
    for kind, options in OPTIONS.items():
        blockers, line = report.blockers(kind), command(report, kind)
        yield f"| `{options}` | {'no: ' + ', '.join(blockers) if blockers else _code(line) if line else 'yes'} |"


def _code(text: str) -> str:
    """Text as it is, in a table's cell too."""
    shown = printable(text).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    room = " " if "`" in shown else ""
    return f"{fence}{room}{shown}{room}{fence}"
