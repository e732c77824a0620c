"""The summary of a fleet as one page that needs nothing else. All that comes from files is escaped, as in reports."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from statistics import median
from typing import Final

from converter.derive.model_names import public_name
from converter.fleet.rows import Row
from converter.fleet.summary import Summary, summed_up
from converter.fleet.table import Table
from converter.fleet.task import STATUS
from converter.report.documentation import rule_named
from converter.report.printable import printable
from converter.report.sizes import size_text
from converter.version import __version__
from converter.writing.whole_file import whole_file

_MEANING: Final = {
    "fine": "converted, and proven and pushed where that was asked for",
    "refused": "a rule forbids this deployment",
    "unproven": "written, but not shown to serve the adapter as PEFT does",
    "failed": "could not be done; the next run tries again",
    "missing": "there is no adapter; the next run looks again",
}
_KIND: Final = {"failed": "", "refused": "refused", "unproven": "doubtful", "missing": "doubtful"}  # of report.css


def write_html(path: Path, table: Table, rows: Sequence[Row], manifest: Path) -> None:
    """Write the summary of a manifest's rows to ``path``, whole or not at all."""
    page = html_page(summed_up(table, rows), len(rows), manifest)
    with whole_file(path) as file:
        file.write(page.encode())


def html_page(summary: Summary, n_rows: int, manifest: Path) -> str:
    """The whole page."""
    report_css = Path(__file__).parents[1].joinpath("report", "formats", "report.css").read_text(encoding="utf-8")
    fleet_css = Path(__file__).with_name("fleet.css").read_text(encoding="utf-8")
    body = "\n".join((*_verdict(summary, n_rows, manifest), *_bases(summary), *_rules(summary), *_not_fine(summary)))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>adapter-fleet</title>
<style>
{report_css}{fleet_css}</style>
</head>
<body>
<main>
<h1>adapter-fleet</h1>
{body}
<footer>adapter-fleet {__version__}</footer>
</main>
</body>
</html>
"""


def _verdict(summary: Summary, n_rows: int, manifest: Path) -> Iterator[str]:
    n_fine = summary.states["fine"]
    is_bad = summary.states["refused"] + summary.states["unproven"] > 0
    kind = "fine" if n_fine == n_rows else "refused" if is_bad else "doubtful"
    yield f'<section class="{kind}"><h2><span>{n_fine:,} of {n_rows:,} fine</span> {_tag("code", str(manifest))}</h2>'
    shares = [(state, 100 * summary.states[state] / n_rows) for state in STATUS if summary.states[state]]
    label = ", ".join(f"{summary.states[state]} {state}" for state, _ in shares)
    bars = "".join(f'<i class="{state}" style="width:{share:.2f}%"></i>' for state, share in shares)
    yield f'<div class="states" role="img" aria-label="{_text(label)}">{bars}</div>'
    lines = [
        f'<tr><th scope=row>{state}</th><td class="n">{summary.states[state]:,}</td><td>{_MEANING[state]}</td></tr>'
        for state in STATUS
        if summary.states[state]
    ]
    left = n_rows - summary.states.total()
    if left:
        lines.append(f'<tr><th scope=row>not done</th><td class="n">{left:,}</td><td>the next run does them</td></tr>')
    yield _table("", lines)
    yield f"<p>{_text(_facts(summary))}</p></section>"


def _facts(summary: Summary) -> str:
    nodes = len(summary.nodes.keys() - {""})
    facts = [
        f"{size_text(summary.nbytes)} written in {summary.seconds:,.0f} s of work on {nodes} node{'s'[: nodes != 1]}"
    ]
    if ratios := summary.effect_ratios:
        facts.append(f"effect ratio {min(ratios):.2g} to {max(ratios):.2g}, median {median(ratios):.2g}")
    return f"{'; '.join(facts)}; the last ended {summary.last.replace('T', ' ')[:19]} UTC"


def _bases(summary: Summary) -> Iterator[str]:
    head = '<tr><th>base</th><th class="n">adapters</th><th class="n">fine</th><th class="n">bytes</th>'
    head += '<th class="n">read</th></tr>'
    lines = [
        f'<tr><td title="{_text(base)}">{_tag("code", public_name(Path(base)))}</td>'
        f'<td class="n">{of.states.total():,}</td><td class="n">{of.states["fine"]:,}</td>'
        f'<td class="n">{size_text(of.nbytes)}</td><td class="n">{of.n_readings}</td></tr>'
        for base, of in sorted(summary.bases.items())
    ]
    if lines:
        yield f"<section><h2>Bases</h2>{_table(head, lines, 'bases')}</section>"


def _rules(summary: Summary) -> Iterator[str]:
    for title, counts in (("Refused by", summary.codes), ("Warned of by", summary.warnings)):
        lines = [
            f"<tr><td>{_text(f'{code} {_rule(code)}')}</td><td>{_bar(n, counts.most_common(1)[0][1])}</td></tr>"
            for code, n in counts.most_common()
        ]
        if lines:
            head = "<tr><th>rule</th><th>adapters</th></tr>"
            yield f"<section><h2>{title}</h2>{_table(head, lines, 'rules')}</section>"


def _bar(n: int, most: int) -> str:
    return f'<div class="bar"><span><i style="width:{100 * n / most:.1f}%"></i></span><b>{n:,}</b></div>'


def _rule(code: str) -> str:
    rule = rule_named(code)
    return rule.name if rule else ""


def _not_fine(summary: Summary) -> Iterator[str]:
    for state in ("failed", "refused", "unproven", "missing"):
        if adapters := summary.not_fine.get(state):
            n = summary.states[state]
            many = f"the first {len(adapters)} of {n:,}" if n > len(adapters) else f"{n:,}"
            lines = "".join(f"<li>{_tag('code', path)}<br>{_text(why)}</li>" for path, why in adapters)
            listed = f"<details open><summary>{many} adapter{'s'[: n != 1]}</summary><ul>{lines}</ul></details>"
            yield f'<section class="{_KIND[state]}"><h2>{state.capitalize()}</h2>{listed}</section>'


def _table(head: str, rows: Sequence[str], kind: str = "") -> str:
    return f'<div class="wide"><table class="{kind}">{head}{"".join(rows)}</table></div>'


def _tag(name: str, text: str) -> str:
    return f"<{name}>{_text(text)}</{name}>"


def _text(text: str) -> str:
    return escape(printable(text))
