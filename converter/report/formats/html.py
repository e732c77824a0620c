"""The report as one page that needs nothing else: the verdict first, then what each layer's delta amounts to.

All that comes from files is escaped twice over: as `printable` does, and for HTML.
"""

import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from itertools import groupby
from math import isfinite, sqrt
from pathlib import Path
from typing import NamedTuple

from converter.architectures import numbers_in
from converter.derive.adapter import Adapter, LoraPair, read_adapter
from converter.diagnostics import OPTIONS, Finding, Report, Severity
from converter.errors import ConverterError
from converter.report.commands import command
from converter.report.documentation import address, documentation, rule_named
from converter.report.outcomes import Outcome, Run, Unread, level_of, verdict_of
from converter.report.printable import printable
from converter.report.text import text_summary
from converter.version import __version__


class _Row(NamedTuple):
    """One module's delta; ``norm`` is None where none can be told."""

    module: str
    rank: int
    shape: tuple[int, ...]
    scaling: float
    norm: float | None


def render(run: Run) -> str:
    """The whole page."""
    style = files("converter.report.formats").joinpath("report.css").read_text(encoding="utf-8")
    sections = "\n".join("\n".join(_section(outcome, strict=run.strict)) for outcome in run.outcomes)
    waivers = "".join(_tag("li", str(use)) for use in run.idle_waivers)
    summary = _tag("p", text_summary(run.statuses)) if len(run.outcomes) > 1 else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>adapter-check</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
</head>
<body>
<main>
<h1>adapter-check</h1>
{summary}
{sections}
{f"<ul>{waivers}</ul>" if waivers else ""}
<footer>adapter-check {__version__}</footer>
</main>
</body>
</html>
"""


def _section(outcome: Outcome, *, strict: bool) -> Iterator[str]:
    match outcome:
        case Unread(path, _, message):
            yield f'<section class="refused">{_heading("could not be judged", str(path))}{_tag("p", message)}</section>'
        case Report():
            yield from _report(outcome, strict=strict)


def _report(report: Report, *, strict: bool) -> Iterator[str]:
    kind = verdict_of(report, strict=strict)
    verdict = "fine, but not by --strict," if kind == "doubtful" else kind
    yield f'<section class="{kind}">'
    of = report.refused if kind == "refused" else report.asked
    yield _heading(f"{verdict} for {', '.join(of)}", str(report.path))
    if report.base:
        yield f"<p>Base: {_tag('code', report.base)}</p>"
    for _, group in groupby(report.findings, lambda finding: finding.code):
        yield _finding(report, [*group])
    if report.targets:
        yield _targets(report)
    if report.base and (report.asks_gguf or not report.passed):
        yield _deployments(report)
    yield from _deltas(report)
    if report.skipped:
        codes = ", ".join(skip.code for skip in report.skipped)
        yield f"<details><summary>{len(report.skipped)} rules not applied</summary>{_tag('p', codes)}</details>"
    yield "</section>"


def _heading(verdict: str, path: str) -> str:
    return f"<h2>{_tag('span', verdict)} {_tag('code', path)}</h2>"


def _finding(report: Report, findings: Sequence[Finding]) -> str:
    first = findings[0]
    level, rule = level_of(report, first), rule_named(first.code)
    lines = "".join(_tag("li", f"{finding.where}: {finding.message}") for finding in findings)
    many = f"<details><summary>{len(findings)} times</summary><ul>{lines}</ul></details>"
    text = documentation(rule) if rule else None
    told = f"<p><b>Why</b> {_prose(text.why)}</p><p><b>Do</b> {_prose(text.what_to_do)}</p>" if text else ""
    code = f'<a href="{address(first.code)}">{first.code}</a>' if rule else _text(first.code)
    severity = "warning" if first.severity is Severity.WARNING else level
    found = many if len(findings) > 3 else f"<ul>{lines}</ul>"
    return f'<article class="{severity}"><h3>{code} {_text(first.name)}</h3>{found}{told}</article>'


def _targets(report: Report) -> str:
    rows = []
    for target in report.targets:
        codes = ", ".join(dict.fromkeys(finding.code for finding in report.stopping_target(target)))
        needs = f"<p>{_tag('code', target.needs)}</p>" if target.needs and not codes else ""
        note = f"<p>{_prose(target.note)}</p>" if target.note else ""
        answer = f"{_text(f'no: {codes}' if codes else 'yes, exactly')} <small>({target.evidence})</small>{note}{needs}"
        rows.append(f"<tr><th scope=row>{_text(target.name)}</th><td>{answer}</td></tr>")
    return f"<h3>Where it can be served</h3>{_table('', rows)}"


def _deployments(report: Report) -> str:
    rows = []
    for kind, options in OPTIONS.items():
        blockers, line = report.blockers(kind), command(report, kind)
        answer = _text("no: " + ", ".join(blockers)) if blockers else _tag("code", line or "yes")
        rows.append(f"<tr><th scope=row>{_text(options)}</th><td>{answer}</td></tr>")
    return f"<h3>What can be deployed</h3>{_table('', rows)}"


def _deltas(report: Report) -> Iterator[str]:
    if not isinstance(report.path, Path):  # on a hub, where its numbers are left
        return
    try:
        rows = [*_rows(read_adapter(report.path))]
    except ConverterError:  # a rule has said why
        return
    if not rows:
        return
    yield "<h3>What it changes</h3>"
    yield _layers(rows)
    yield f"<details><summary>{len(rows)} modules</summary>{_modules(rows)}</details>"


def _rows(adapter: Adapter) -> Iterator[_Row]:
    # Layers by their number; the ends, which have none, behind them.
    for pair in sorted(adapter.pairs, key=lambda pair: (not numbers_in(pair.module), numbers_in(pair.module))):
        yield _Row(pair.module, pair.rank, pair.shape, pair.scaling, _norm(pair))


def _norm(pair: LoraPair) -> float | None:
    from converter.values.deltas import delta_norm

    try:
        return delta_norm(pair)
    except ConverterError:  # the file ends early, as a rule has said
        return None


def _layers(rows: Sequence[_Row]) -> str:
    """A bar for the norm of each layer's deltas together, and one for their largest rank."""
    layers: dict[str, list[_Row]] = {}
    for row in rows:
        layer, *_ = (*numbers_in(row.module), None)
        layers.setdefault(row.module if layer is None else f"layer {layer}", []).append(row)
    norms = {name: sqrt(sum(row.norm**2 for row in own if row.norm is not None)) for name, own in layers.items()}
    ranks = {name: max(row.rank for row in own) for name, own in layers.items()}
    most_norm = max((norm for norm in norms.values() if isfinite(norm)), default=0.0)
    lines = [
        f"<tr><th scope=row>{_text(name)}</th>"
        f"<td>{_bar(norms[name], most_norm, 'norm')}</td><td>{_bar(ranks[name], max(ranks.values()), 'rank')}</td></tr>"
        for name in layers
    ]
    return _table("<tr><th></th><th>norm of the delta</th><th>rank</th></tr>", lines)


def _bar(value: float, most: float, kind: str) -> str:
    share = 100 * value / most if most and isfinite(value) else 0
    return f'<div class="bar {kind}"><span><i style="width:{share:.1f}%"></i></span><b>{value:.4g}</b></div>'


def _modules(rows: Sequence[_Row]) -> str:
    head = "<tr><th>module</th><th>rank</th><th>shape</th><th>scaling</th><th>norm</th></tr>"
    lines = [
        f"<tr><th scope=row>{_tag('code', row.module)}</th><td>{row.rank}</td>"
        f"<td>{' x '.join(map(str, row.shape))}</td><td>{row.scaling:.4g}</td>"
        f"<td>{'' if row.norm is None else f'{row.norm:.4g}'}</td></tr>"
        for row in rows
    ]
    return _table(head, lines)


def _table(head: str, rows: Sequence[str]) -> str:
    return f'<div class="wide"><table>{head}{"".join(rows)}</table></div>'


def _tag(name: str, text: str) -> str:
    return f"<{name}>{_text(text)}</{name}>"


def _prose(text: str) -> str:
    """Our own words, with code between backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))


def _text(text: str) -> str:
    return escape(printable(text))
