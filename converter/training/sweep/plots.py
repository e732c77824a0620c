"""The plots of a sweep as SVG, to be set into a page: its text is text, its colours are the page's.

Colours: Okabe and Ito's, told apart by every kind of colour vision (https://jfly.uni-koeln.de/color/); each head has
a marker of its own besides. The page may give each another shade on a dark ground (``--head-lora: ...``).
"""

import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from converter.training.settings import HEADS, Head
from converter.training.sweep.results import Outcome, TrialResult
from converter.training.sweep.summaries import Summary, summaries

COLOURS: Final[dict[Head, str]] = {"none": "#0072b2", "lora": "#d55e00", "full": "#009e73", "tied": "#cc79a7"}
_MARKERS: Final[dict[Head, str]] = {"none": "o", "lora": "s", "full": "^", "tied": "D"}
# Stand for the page's own while matplotlib draws.
_INK, _FAINT, _PAPER = "#010203", "#040506", "#070809"
_PAGE_COLOURS: Final = {
    _INK: "currentColor",
    _FAINT: "var(--faint)",
    _PAPER: "var(--paper)",
    **{colour: f"var(--head-{head})" for head, colour in COLOURS.items()},
}
_STYLE: Final[dict[Any, Any]] = {
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.ymargin": 0.12,  # room for a label below the lowest point
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that texts have room wherever it is drawn
    "font.size": 10,
    "grid.color": _FAINT,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "svg.fonttype": "none",
    "svg.hashsalt": "sweep",
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


def loss_against_rank(results: Sequence[TrialResult], recommended: TrialResult | None) -> str:
    """Eval loss by rank: each head's best setting of each rank joined, all others faint, pruned ones hollow."""
    ranks, heads = sorted({result.values.r for result in results}), _heads(results)
    with _figure("Eval loss against rank, by head", "rank r", "eval loss") as (axes, svg):
        ceiling = _ceiling([loss for result in results if result.outcome and (loss := result.eval_loss) is not None])
        ceiling = max([ceiling, *(one.mean for head in heads for one in _best_of_ranks(_of(results, head)))])
        ends: dict[Head, float] = {}
        for index, head in enumerate(heads):
            shift = 0.16 * (index - (len(heads) - 1) / 2)
            place = {rank: at + shift for at, rank in enumerate(ranks)}
            of_head = _of(results, head)
            _draw_trials(axes, of_head, place, ceiling)
            ends[head] = _draw_best(axes, head, _best_of_ranks(of_head), place, ceiling)
            _ring(
                axes, [(place[one.values.r], outcome.eval_loss) for one, outcome in _only(of_head, recommended)], "left"
            )
        axes.set_xticks(range(len(ranks)), [str(rank) for rank in ranks])
        axes.set_xlim(-0.5, len(ranks) - 0.5)
        _label_ends(axes, ends)
    return svg()


def learning_curves(results: Sequence[TrialResult], recommended: TrialResult | None) -> str:
    """Eval loss by step, one line a trial; a hollow end is where a trial was pruned."""
    with _figure("Learning curves", "step", "eval loss") as (axes, svg):
        ceiling = _ceiling([loss for result in results for _, loss in result.curve])
        for result in results:
            colour, chosen = COLOURS[result.values.head], result is recommended
            steps = [step for step, _ in result.curve]
            losses = [min(loss, ceiling) for _, loss in result.curve]
            axes.plot(
                steps, losses, color=colour, lw=2.4 if chosen else 1, alpha=1 if chosen else 0.45, marker=".", ms=4
            )
            if result.state == "pruned" and steps:
                _hollow(axes, steps[-1], losses[-1], result.values.head)
            if chosen:
                axes.annotate(
                    "recommended",
                    (steps[-1], losses[-1]),
                    xytext=(6, 0),
                    textcoords="offset points",
                    va="center",
                    annotation_clip=False,
                )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(axes, _heads(results))
    return svg()


def loss_against_forgetting(results: Sequence[TrialResult], recommended: TrialResult | None) -> str:
    """How much more general text surprises the model than before, by eval loss; "" where none was measured."""
    known = [
        (result, outcome.eval_loss, 100 * outcome.forgetting)
        for result in results
        if (outcome := result.outcome) and outcome.forgetting is not None
    ]
    if not known:
        return ""
    with _figure("Forgetting against eval loss", "eval loss", "perplexity on general text, change in %") as (axes, svg):
        axes.axhline(0, color=_FAINT, lw=0.8)
        for result, loss, grown in known:
            head = result.values.head
            axes.plot(loss, grown, _MARKERS[head], color=COLOURS[head], ms=6, alpha=0.75, mew=0)
            if result is recommended:
                _ring(axes, [(loss, grown)], "right")
        _legend(axes, _heads(results))
    return svg()


@contextmanager
def _figure(title: str, x: str, y: str) -> Iterator[tuple[Axes, Callable[[], str]]]:
    """Axes to draw on, and what they make once the block has ended."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.6, 3.9), layout="constrained")
        axes = figure.subplots()
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_axisbelow(True)
        made: list[str] = []
        yield axes, lambda: made[0]
        made.append(_svg(figure, title))


def _heads(results: Iterable[TrialResult]) -> list[Head]:
    tried = {result.values.head for result in results}
    return [head for head in HEADS if head in tried]


def _ceiling(losses: Sequence[float]) -> float:
    """Where an axis ends, so that a run that went astray doesn't press all others together."""
    finite = sorted(loss for loss in losses if math.isfinite(loss))
    if not finite:
        return math.inf
    low, usual = finite[0], finite[int(0.8 * (len(finite) - 1))]
    return min(finite[-1], low + 2 * (usual - low)) if usual > low else finite[-1]


def _draw_trials(axes: Axes, results: Iterable[TrialResult], place: Mapping[int, float], ceiling: float) -> None:
    for result in results:
        head, loss = result.values.head, result.eval_loss
        if loss is None:
            continue
        at = place[result.values.r], min(loss, ceiling)
        if result.state == "pruned":
            _hollow(axes, *at, head)
        elif result.outcome:
            axes.plot(*at, _MARKERS[head], color=COLOURS[head], ms=4.5, alpha=0.4, mew=0)


def _of(results: Iterable[TrialResult], head: Head) -> list[TrialResult]:
    return [result for result in results if result.values.head == head]


def _best_of_ranks(results: Sequence[TrialResult]) -> list[Summary]:
    """The best setting of each rank, by rank."""
    best = {one.values.r: one for one in sorted(summaries(results), key=lambda one: -one.mean)}
    return [best[rank] for rank in sorted(best)]


def _draw_best(axes: Axes, head: Head, ordered: Sequence[Summary], place: Mapping[int, float], ceiling: float) -> float:
    """Draw the best setting of each rank, with the spread of its seeds; where the line ends."""
    xs, ys = [place[one.values.r] for one in ordered], [one.mean for one in ordered]
    for x, one in zip(xs, ordered, strict=True):
        axes.plot([x, x], [min(one.losses), min(max(one.losses), ceiling)], color=COLOURS[head], lw=2.5, alpha=0.35)
    axes.plot(xs, ys, color=COLOURS[head], marker=_MARKERS[head], ms=7, lw=1.6, mec=_PAPER, mew=0.8)
    return ys[-1] if ys else math.nan


def _hollow(axes: Axes, x: float, y: float, head: Head) -> None:
    axes.plot(x, y, _MARKERS[head], ms=5, mfc=_PAPER, mec=COLOURS[head], mew=1)


def _ring(axes: Axes, points: Iterable[tuple[float, float]], side: Literal["left", "right"]) -> None:
    """Ring the recommended trial, and say so on the side where the plot has room."""
    offset, align = (-9, "right") if side == "left" else (9, "left")
    for x, y in points:
        axes.plot(x, y, "o", ms=14, mfc="none", mec=_INK, mew=1.2)
        axes.annotate("recommended", (x, y), xytext=(offset, -5), textcoords="offset points", ha=align, va="top")


def _only(results: Iterable[TrialResult], wanted: TrialResult | None) -> Iterator[tuple[TrialResult, Outcome]]:
    return ((result, result.outcome) for result in results if result is wanted and result.outcome)


def _label_ends(axes: Axes, ends: Mapping[Head, float]) -> None:
    """Name each head's line where it ends, never one name over another."""
    low, high = axes.get_ylim()
    above = -math.inf
    for head, y in sorted(ends.items(), key=lambda end: end[1]):
        if math.isfinite(y):
            above = max(y, above + 0.07 * (high - low))
            axes.text(axes.get_xlim()[1], above, f"head {head}", color=COLOURS[head], va="center", weight="bold")


def _legend(axes: Axes, heads: Iterable[Head]) -> None:
    handles = [
        Line2D([], [], color=COLOURS[head], marker=_MARKERS[head], lw=1.6, ms=6, label=f"head {head}") for head in heads
    ]
    axes.legend(handles=handles, frameon=False, ncols=len(handles), loc="lower right", bbox_to_anchor=(1, 1))


def _svg(figure: Figure, title: str) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # several plots share a page, and matplotlib names all of them alike
    for colour, of_page in _PAGE_COLOURS.items():
        svg = svg.replace(colour, of_page)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
