"""The curve of a run: a PNG to keep, and plain text for the terminal.

Colours: Okabe and Ito's, told apart by every kind of colour vision (https://jfly.uni-koeln.de/color/). Braille patterns
number their dots in columns, the two lowest last (https://www.unicode.org/charts/PDF/U2800.pdf).
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

_TRAIN, _EVAL, _INK, _GREY, _LINE = "#0072b2", "#d55e00", "#222222", "#777777", "#e4e4e4"
_LOG_FROM: Final = 10.0  # below this ratio of highest to lowest, a linear scale shows all there is
_SMOOTHED_FROM: Final = 20  # with fewer rows, the line itself is as clear
_DENSE_FROM: Final = 1000  # from here on single losses run into an area
_MAX_MARKS: Final = 60  # more marks than this would hide their line
_COLUMNS_A_MARK: Final = 4  # in the terminal
_HALO: Final = [withStroke(linewidth=3, foreground="white")]

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What a curve is drawn with. ``dots`` holds the bit of each dot of a cell, ``cells`` a character for each sum."""

    dots: tuple[tuple[int, ...], ...]
    cells: str
    mark: str
    tick: str
    side: str
    corner: str
    floor: str


BRAILLE: Final = Glyphs(
    dots=((1, 8), (2, 16), (4, 32), (64, 128)),
    cells=" " + "".join(chr(0x2800 + bits) for bits in range(1, 256)),
    mark="●",
    tick="┤",
    side="│",
    corner="└",
    floor="─",
)
ASCII: Final = Glyphs(dots=((1,), (2,)), cells=" '.:", mark="o", tick="+", side="|", corner="+", floor="-")


def glyphs_for(encoding: str | None) -> Glyphs:
    """Braille where a stream of this encoding can carry it."""
    try:
        (BRAILLE.cells + BRAILLE.mark + BRAILLE.tick).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BRAILLE


@dataclass(frozen=True, slots=True)
class _Series:
    """One loss by step: the last finite value of each step."""

    steps: _Floats
    values: _Floats

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, float]], name: str) -> "_Series":
        found = {row["step"]: row[name] for row in rows if name in row and math.isfinite(row[name])}
        steps = sorted(found)
        return cls(np.array(steps, dtype=np.float64), np.array([found[step] for step in steps], dtype=np.float64))

    @property
    def smoothed(self) -> _Floats:
        """The mean of each value's neighbours, weighted by a bell a tenth of the run wide; ends lean on what is there.

        A mean that only looks back, as is common, would show every turn too late.
        """
        n = len(self.values)
        if n < _SMOOTHED_FROM:
            return self.values
        half = min(3 * n // 40, (n - 1) // 2)
        bell = np.exp(-0.5 * (np.arange(-half, half + 1) / (n / 40)) ** 2)
        smoothed: _Floats = np.convolve(self.values, bell, "same") / np.convolve(np.ones(n), bell, "same")
        return smoothed

    @property
    def usual(self) -> _Floats:
        """All values but the lowest and highest in a hundred: the odd spike would flatten the rest."""
        low, high = np.percentile(self.values, [1, 99]) if len(self.values) else (0.0, 0.0)
        return self.values[(low <= self.values) & (self.values <= high)]


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where a loss lies between the lowest and the highest shown, from 0 to 1."""

    low: float
    high: float
    is_log: bool

    @classmethod
    def of(cls, *shown: _Floats) -> "_Scale":
        """Room for all of these."""
        losses = np.concatenate(shown).tolist()
        low, high = (min(losses), max(losses)) if losses else (0.0, 1.0)
        if low > 0 and high > low * _LOG_FROM:
            return cls(low, high, is_log=True)
        room = 0.0 if high > low else 0.05 * abs(high) or 0.05
        return cls(low - room, high + room, is_log=False)

    def at(self, share: float) -> float:
        """The loss at this share of the height."""
        if self.is_log:
            return self.low * math.exp(share * math.log(self.high / self.low))
        return self.low + share * (self.high - self.low)

    def shares(self, values: _Floats) -> _Floats:
        """Each loss's share of the height; what is cut off lies on the edge."""
        bounded = np.clip(values, self.low, self.high)
        if self.is_log:
            return np.log(bounded / self.low) / math.log(self.high / self.low)
        return (bounded - self.low) / (self.high - self.low)


def write_loss_curve(rows: Sequence[Mapping[str, float]], title: str, path: Path) -> None:
    """Write the curve as PNG, 1600 x 900: losses of training faint, smoothed strong, of held-out data as points."""
    train, held_out = _Series.of(rows, "loss"), _Series.of(rows, "eval_loss")
    figure = Figure(figsize=(8, 4.5), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.075, 0.115, 0.775, 0.71))
    scale = _Scale.of(train.smoothed, held_out.values, train.usual)
    _dress(axes, scale, title)
    _draw_train(axes, train)
    _draw_held_out(axes, held_out)
    _fit_steps(axes, [*train.steps, *held_out.steps])
    _label_ends(axes, scale, train, held_out)
    with warnings.catch_warnings():
        # A title in a script that matplotlib's own font lacks shows as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, format="png", metadata={"Software": None})


def _dress(axes: Axes, scale: _Scale, title: str) -> None:
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_GREY)
    axes.tick_params(length=0, labelsize=9, labelcolor=_GREY)
    axes.grid(axis="y", color=_LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    _dress_height(axes, scale)
    # A dollar sign is no formula here.
    axes.text(0, 1.145, title, transform=axes.transAxes, size=13, weight="bold", color=_INK, parse_math=False)
    axes.text(0, 1.06, "loss, log scale" if scale.is_log else "loss", transform=axes.transAxes, size=9, color=_GREY)
    axes.set_xlabel("step", loc="right", size=9, color=_GREY)


def _dress_height(axes: Axes, scale: _Scale) -> None:
    if scale.is_log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylim(scale.at(-0.05), scale.at(1.05))


def _draw_train(axes: Axes, train: _Series) -> None:
    if len(train.values) >= _SMOOTHED_FROM:
        axes.plot(
            train.steps,
            train.values,
            color=_TRAIN,
            linewidth=0.6,
            alpha=0.3 if len(train.values) < _DENSE_FROM else 0.15,
        )
    mark = "o" if len(train.values) == 1 else ""
    axes.plot(train.steps, train.smoothed, color=_TRAIN, linewidth=2, marker=mark, solid_capstyle="round")


def _draw_held_out(axes: Axes, held_out: _Series) -> None:
    if not len(held_out.values):
        return
    line: dict[str, object] = {"color": _EVAL, "linewidth": 1.2, "markersize": 5.5, "markeredgecolor": "white"}
    (drawn,) = axes.plot(held_out.steps, held_out.values, marker="o", zorder=3)
    drawn.set(**line, markevery=max(1, len(held_out.values) // _MAX_MARKS), clip_on=False)
    _label_lowest(axes, held_out)


def _label_lowest(axes: Axes, held_out: _Series) -> None:
    """Where it began to learn by heart, if it did."""
    lowest = int(held_out.values.argmin())
    if lowest < len(held_out.values) - 1:
        axes.annotate(
            f"lowest {held_out.values[lowest]:.4g} at step {held_out.steps[lowest]:.0f}",
            (held_out.steps[lowest], held_out.values[lowest]),
            (0, 11), textcoords="offset points", ha="center", size=8.5, color=_EVAL, path_effects=_HALO, zorder=4,
        )  # fmt: skip


def _fit_steps(axes: Axes, steps: Sequence[float]) -> None:
    first, last = (min(steps), max(steps)) if steps else (0, 1)
    room = 0.01 * (last - first) or 0.5
    axes.set_xlim(first - room, last + room)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True, min_n_ticks=1))


def _label_ends(axes: Axes, scale: _Scale, train: _Series, held_out: _Series) -> None:
    """The name and last value of each line at its height, right of the plot, and apart where they would meet."""
    named = ((train.smoothed, "train", _TRAIN), (held_out.values, "eval", _EVAL))
    ends = [(float(scale.shares(line[-1:])[0]), name, line[-1], c) for line, name, c in named if len(line)]
    heights = _apart([share for share, *_ in ends], 0.07)
    for height, (_, name, value, colour) in zip(heights, ends, strict=True):
        # The axes reach from -0.05 to 1.05 of the scale.
        axes.text(1.015, (height + 0.05) / 1.1, f"{name} {value:.3g}", transform=axes.transAxes, va="center", size=10,
                  weight="bold", color=colour)  # fmt: skip


def _apart(heights: list[float], distance: float) -> list[float]:
    if len(heights) < 2 or abs(heights[0] - heights[1]) >= distance:
        return heights
    middle, sign = sum(heights) / 2, 1 if heights[0] >= heights[1] else -1
    return [middle + sign * distance / 2, middle - sign * distance / 2]


def loss_curve_text(rows: Sequence[Mapping[str, float]], width: int, height: int = 10, glyphs: Glyphs = BRAILLE) -> str:
    """The curve in ``height`` lines of text, below them the steps and what was drawn; "" without any loss."""
    train, held_out = _Series.of(rows, "loss"), _Series.of(rows, "eval_loss")
    steps = [*train.steps, *held_out.steps]
    if not steps:
        return ""
    scale, span = _Scale.of(train.smoothed, held_out.values), (min(steps), max(steps))
    labels = _height_labels(scale, height)
    n_columns = max(width - len(labels[0]) - 2, 10)
    drawn = _drawn(train, held_out, scale, _Grid(n_columns, height, span, glyphs))
    sides = (f"{label} {glyphs.side if label.isspace() else glyphs.tick}" for label in labels)
    first, last = (f"{step:.0f}" for step in span)
    below = (
        glyphs.corner + glyphs.floor * n_columns,
        f" {first}{last if first != last else '':>{n_columns - len(first)}}",
        f" {_names(train, held_out, scale, glyphs)}",
    )
    indent = " " * (len(labels[0]) + 1)
    lines = (*map(str.__add__, sides, drawn), *(indent + line for line in below))
    return "\n".join(line.rstrip() for line in lines)


def _height_labels(scale: _Scale, height: int) -> list[str]:
    """A loss beside the highest, the middle and the lowest line."""
    labels = [""] * height
    for row in {0, height // 2, height - 1}:
        labels[row] = f"{scale.at(1 - row / max(height - 1, 1)):.4g}"
    margin = max(map(len, labels))
    return [f"{label:>{margin}}" for label in labels]


@dataclass(frozen=True, slots=True)
class _Grid:
    """Columns and lines of characters, each of several dots, over a span of steps."""

    n_columns: int
    n_lines: int
    span: tuple[float, float]
    glyphs: Glyphs

    def places(self, steps: _Floats, shares: _Floats, n_across: int, n_down: int) -> tuple[_Floats, _Floats]:
        """Where points lie in cells each split into so many parts: from the left, and from the top."""
        first, last = self.span
        across = (steps - first) / ((last - first) or 1) * (self.n_columns * n_across - 1)
        return across, (1 - shares) * (self.n_lines * n_down - 1)

    def dots(self, steps: _Floats, shares: _Floats) -> Iterator[tuple[int, int]]:
        """The dots of the line through these points, without gaps where it is steep."""
        x, y = self.places(steps, shares, len(self.glyphs.dots[0]), len(self.glyphs.dots))
        columns = np.arange(round(x[0]), round(x[-1]) + 1)
        heights = [round(height) for height in np.interp(columns, x, y)]
        for column, before, here in zip(columns.tolist(), [heights[0], *heights], heights, strict=False):
            towards = 1 if before >= here else -1
            yield from ((column, dot) for dot in (here, *range(here + towards, before, towards)))


def _drawn(train: _Series, held_out: _Series, scale: _Scale, grid: _Grid) -> list[str]:
    dots = grid.glyphs.dots
    bits = np.zeros((grid.n_lines, grid.n_columns), dtype=np.int64)
    if len(train.values):
        for x, y in grid.dots(train.steps, scale.shares(train.smoothed)):
            bits[y // len(dots), x // len(dots[0])] |= dots[y % len(dots)][x % len(dots[0])]
    cells = [[grid.glyphs.cells[sum_of_bits] for sum_of_bits in line] for line in bits.tolist()]
    points = list(zip(*grid.places(held_out.steps, scale.shares(held_out.values), 1, 1), strict=True))
    for x, y in points[:: -max(1, _COLUMNS_A_MARK * len(points) // grid.n_columns)]:  # the last is always there
        cells[round(y)][round(x)] = grid.glyphs.mark
    return ["".join(line) for line in cells]


def _names(train: _Series, held_out: _Series, scale: _Scale, glyphs: Glyphs) -> str:
    lines = ((train.smoothed, f"{glyphs.floor * 2} train"), (held_out.values, f"{glyphs.mark} eval"))
    named = [f"{name} {line[-1]:.4g}" for line, name in lines if len(line)]
    return "   ".join([*named, "by step, log scale" if scale.is_log else "by step"])
