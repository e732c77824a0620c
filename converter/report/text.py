"""The report for people: the verdict, then what, where, consequence and what to do, then what can be deployed.

Plain ASCII of our own; what comes from files is escaped where it isn't printable. click drops the colours in a pipe.
"""

import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final

import click

from converter.diagnostics import OPTIONS, Finding, Kind, Report, Severity, Skipped
from converter.errors import Status
from converter.report.commands import command
from converter.report.documentation import documentation, rule_named
from converter.report.outcomes import concerns, verdict_of
from converter.report.printable import printable

_N_SHOWN: Final = 3  # of one rule's findings; a fault in every layer is told once
_OPTIONS_WIDTH: Final = max(map(len, OPTIONS.values()))


def text_report(report: Report, width: int = 80, *, strict: bool = False, every: bool = False) -> str:
    """One adapter's report, ready to print. ``every``: all findings, where a rule has many."""
    skipped = [skip for skip in report.skipped if concerns(report, skip)]
    return "\n\n".join((details(report, width, strict=strict, every=every), *not_applied(skipped, width)))


def details(report: Report, width: int, *, strict: bool, every: bool = False, known: Collection[str] = ()) -> str:
    """One adapter's report but for the rules that were not applied; of the rules ``known`` only what they found."""
    findings = groupby(shown(report), lambda finding: finding.code)
    parts = (
        verdict_line(report, strict=strict),
        *(_rule_block(list(group), width, every=every, explained=code not in known) for code, group in findings),
        *([_targets(report, width)] if report.targets else []),
        *([_deployments(report, width)] if _shows_deployments(report) else []),
    )
    return "\n\n".join(parts)


def text_summary(statuses: Sequence[Status]) -> str:
    """One line over several adapters, of the status of each."""
    names: dict[Status, str] = {0: "fine", 1: "refused", 2: "could not be read", 3: "not found"}
    counts = ", ".join(f"{statuses.count(status)} {name}" for status, name in names.items() if status in statuses)
    return f"{len(statuses)} looked at: {counts}"


def verdict_line(report: Report, *, strict: bool) -> str:
    """What comes of one adapter, in a line; and a second one where something was left out."""
    asked = ", ".join(map(printable, report.asked))
    words, colour = {
        "refused": (f"refused for {', '.join(map(printable, report.refused))}", "red"),
        "fine": (f"fine for {asked}", "green"),
        "doubtful": (f"fine for {asked}, but not by --strict", "yellow"),
    }[verdict_of(report, strict=strict)]
    verdict = click.style(words, fg=colour, bold=True)
    left_out = report.blockers(report.deployment.kind) if report.passed and report.deployment_asked else ()
    note = f"\n  Left out, but adapter-to-gguf refuses by it: {', '.join(left_out)}" if left_out else ""
    return f"{printable(str(report.path))}: {verdict}{_counts(report)}{click.style(note, fg='yellow')}"


def _counts(report: Report) -> str:
    warnings = [
        finding for finding in report.findings if finding.severity is Severity.WARNING and concerns(report, finding)
    ]
    counts = (
        (len(report.stopping), "error"),
        (len(warnings), "warning"),
        (sum(not skip.by_choice for skip in report.skipped if concerns(report, skip)), "rule not applied"),
        (sum(skip.by_choice for skip in report.skipped), "rule left out"),
    )
    text = ", ".join(_plural(n, noun) for n, noun in counts if n)
    return f" ({text})" if text else ""


def _plural(n: int, noun: str) -> str:
    head, _, tail = noun.partition(" ")
    return f"{n} {head}{'s' if n != 1 else ''} {tail}".rstrip()


def shown(report: Report) -> Iterator[Finding]:
    """What matters for what was asked for; the rest has its line among the deployments."""
    for finding in report.findings:
        warns = finding.severity is Severity.WARNING and concerns(report, finding)
        if warns or report.is_stopped_by(finding):
            yield finding


def _rule_block(findings: Sequence[Finding], width: int, *, every: bool, explained: bool) -> str:
    first = findings[0]
    colour = "red" if first.severity is Severity.ERROR else "yellow"
    head = f"{click.style(first.severity.value, fg=colour)} {click.style(first.code, bold=True)} {first.name}"
    n_shown = len(findings) if every else _N_SHOWN
    lines = [_wrapped(_at(finding), width, "  ") for finding in findings[:n_shown]]
    if len(findings) > n_shown:
        lines.append(f"  ... and {len(findings) - n_shown} more (adapter-check -v shows all)")
    rule = rule_named(first.code) if explained else None
    if rule:
        text = documentation(rule)
        lines.append(_wrapped(f"Why: {text.why}", width, "  "))
        lines.append(_wrapped(f"Do:  {text.what_to_do}", width, "  "))
    return "\n".join((head, *lines))


def _at(finding: Finding) -> str:
    return printable(f"{finding.where}: {finding.message}")


def _targets(report: Report, width: int) -> str:
    lines = ["Where it can be served"]
    for target in report.targets:
        codes = ", ".join(dict.fromkeys(finding.code for finding in report.stopping_target(target)))
        lines.append(f"  {printable(target.name)} ({target.evidence})  {f'no: {codes}' if codes else 'yes, exactly'}")
        told = (target.note, target.needs if not codes else "")
        lines += [_wrapped(printable(text), width, "    ") for text in told if text]
    if report.base and not _shows_deployments(report):
        lines.append(_wrapped(_identity(report), width, "  "))
    return "\n".join(lines)


def _shows_deployments(report: Report) -> bool:
    """Whether GGUFs were asked for, or may be a way out."""
    return report.base is not None and (report.asks_gguf or not report.passed)


def _deployments(report: Report, width: int) -> str:
    lines = ["What can be deployed"]
    lines += [line for kind in OPTIONS for line in _deployment_lines(report, kind)]
    lines += [_wrapped(text, width, "  ") for text in _unexplained(report)]
    lines.append(_wrapped(_identity(report), width, "  "))
    return "\n".join(lines)


def _identity(report: Report) -> str:
    compared = ", ".join(report.base_checked_by)
    named = f"Base: {printable(str(report.base))}, which the adapter names. " if report.base_named_by_adapter else ""
    return f"{named}Base checked by: {compared or 'shapes alone; another model of the same shapes would pass too'}"


def _deployment_lines(report: Report, kind: Kind) -> Iterator[str]:
    """Yes or no and why; the command for the deployment asked for, or for each way out if that one is closed."""
    blockers = report.blockers(kind)
    yield f"  {OPTIONS[kind]:{_OPTIONS_WIDTH}}  " + (f"no: {', '.join(blockers)}" if blockers else "yes")
    line = command(report, kind)
    if line and (kind == report.deployment.kind or not report.passed):
        yield f"    {printable(line)}"


def _unexplained(report: Report) -> Iterator[str]:
    """One line for each rule that forbids other deployments only, with what to do if none is open."""
    told = {finding.code for finding in shown(report)}
    none_is_open = all(report.blockers(kind) for kind in OPTIONS)
    for finding in (*report.findings, *report.hidden):
        if finding.code not in told:
            told.add(finding.code)
            rule = rule_named(finding.code)
            advice = f". Do: {documentation(rule).what_to_do}" if rule and none_is_open else ""
            yield f"{finding.code} {finding.name}: {_at(finding)}{advice}"


def not_applied(skipped: Iterable[Skipped], width: int) -> Iterator[str]:
    """The rules that were not applied, by the reason why; nothing where there are none."""
    codes: dict[str, list[str]] = {}
    for skip in skipped:
        codes.setdefault(skip.reason, []).append(skip.code)
    if codes:
        texts = (f"{printable(reason)}: {', '.join(_ranges(of_reason))}" for reason, of_reason in codes.items())
        yield "\n".join(("Not applied", *(_wrapped(text, width, "  ") for text in texts)))


def _ranges(codes: Sequence[str]) -> Iterator[str]:
    """Codes in order, three and more in a row as first-last."""
    for _, run in groupby(enumerate(codes), lambda item: (item[1][:2], int(item[1][2:]) - item[0])):
        row = [code for _, code in run]
        yield from (f"{row[0]}-{row[-1]}",) if len(row) > 2 else row


def _wrapped(text: str, width: int, indent: str) -> str:
    return textwrap.fill(
        text,
        max(width, 40),
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
