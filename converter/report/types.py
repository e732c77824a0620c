"""The comparison of all types of a quantised file: a table for people, data for machines."""

from collections.abc import Iterator, Sequence

from converter.planning.type_comparison import TypeCompared
from converter.report.printable import printable
from converter.report.sizes import size_text


def types_text(types: Sequence[TypeCompared]) -> str:
    """A line for each type, and what the figures are."""
    width = max(len(of.least.tensor) for of in types)
    lines = [f"{'type':<10} {'size':>8}  {'kept':>6}  {'noise':>6}  {'least':>6}  in"]
    lines += [_line(of, width) for of in types]
    return "\n".join(map(printable, [*lines, *_meanings()]))


def _line(of: TypeCompared, width: int) -> str:
    least = of.least
    figures = f"{of.kept:6.3f}  {of.noise:6.3g}  {least.share:6.3f}  {least.tensor:<{width}} {least.type}"
    return f"{of.file_type:<10} {size_text(of.nbytes):>8}  {figures}"


def _meanings() -> Iterator[str]:
    yield "kept: the share of the adapter's deltas that is left after rounding; least: of any tensor's own delta"
    yield "noise: the rounding error's size beside the deltas', which the base has without the adapter too"
    yield "measured on rows spread over each matrix; write one with --quantize TYPE, and prove it with adapter-verify"


def types_data(types: Sequence[TypeCompared]) -> dict[str, object]:
    """The comparison for JSON."""
    return {
        "version": 1,
        "types": [
            {
                "type": of.file_type,
                "nbytes": of.nbytes,
                "kept": of.kept,
                "noise": of.noise,
                "tensors": [tensor._asdict() for tensor in of.tensors],
            }
            for of in types
        ],
    }
