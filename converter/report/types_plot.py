"""The comparison of all types as a picture: size against what is kept, as PNG or as a page that needs no network."""

from collections.abc import Sequence
from html import escape
from io import BytesIO

from matplotlib.figure import Figure

from converter.planning.type_comparison import TypeCompared
from converter.report.types import types_text

_ALL, _LEAST = "#0b62a4", "#c8553d"


def types_png(types: Sequence[TypeCompared]) -> bytes:
    """The plot as PNG."""
    out = BytesIO()
    _figure(types).savefig(out, format="png", dpi=150)
    return out.getvalue()


def types_html(types: Sequence[TypeCompared]) -> bytes:
    """A page with the plot and the table."""
    out = BytesIO()
    _figure(types).savefig(out, format="svg")
    svg = out.getvalue().decode().partition("<svg")
    start = '<!doctype html><html lang="en"><meta charset="utf-8"><title>What each type keeps</title>'
    return f"{start}<h1>What each type keeps</h1>{svg[1]}{svg[2]}<pre>{escape(types_text(types))}</pre></html>".encode()


def _figure(types: Sequence[TypeCompared]) -> Figure:
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    ordered = sorted(types, key=lambda of: of.nbytes)
    sizes = [of.nbytes / 1e6 for of in ordered]
    axes.plot(sizes, [of.kept for of in ordered], "o", color=_ALL, label="of all deltas")
    axes.plot(sizes, [of.least.share for of in ordered], "v", color=_LEAST, label="in the tensor that keeps least")
    for (size, kept), names in _at_each_point(ordered).items():
        axes.annotate(names, (size, kept), (-3, 8), textcoords="offset points", rotation=90, fontsize=8)
    axes.axhline(1, color="0.6", linewidth=1)
    axes.set_xlabel("size of the file, MB")
    axes.set_ylabel("share of the delta that is kept")
    axes.margins(x=0.08, y=0.1)
    axes.set_ylim(top=max(1.0, *(of.kept for of in ordered)) + 0.35)  # room for the names
    axes.legend(frameon=False)
    return figure


def _at_each_point(types: Sequence[TypeCompared]) -> dict[tuple[float, float], str]:
    """The names of types that share a point, which are of equal files."""
    names: dict[tuple[float, float], str] = {}
    for of in types:
        point = of.nbytes / 1e6, of.kept
        names[point] = f"{names[point]}, {of.file_type}" if point in names else of.file_type
    return names
