"""The options of ``--quantize``, spelled as llama-quantize spells them, and what they mean together."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from converter.cli.extras import need_extra
from converter.cli.options import PATH
from converter.diagnostics import Quantize
from converter.errors import ConverterError
from converter.planning.file_types import FILE_TYPES, TYPES, tensor_type

if TYPE_CHECKING:
    from converter.conversion.compared_types import Progress
    from converter.planning.conversion_plan import ConversionPlan
    from converter.planning.type_comparison import TypeCompared

Command = Callable[..., Any]

_TYPE: Final = click.Choice(TYPES, case_sensitive=False)


class _TensorType(click.ParamType[tuple[str, str]]):
    """PATTERN=TYPE: a regular expression, looked for in a tensor's name, and a GGML type."""

    name = "PATTERN=TYPE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        try:
            return tensor_type(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


_OPTIONS: Final = (
    click.option(
        "--quantize",
        "file_type",
        type=click.Choice(tuple(FILE_TYPES), case_sensitive=False),
        help="Quantise the merged model as llama-quantize does: every tensor as llama.cpp's mixture of that name "
        "has it, straight from the merge.",
    ),
    click.option(
        "--compare-types",
        is_flag=True,
        help="Write nothing: print the size of every type of --quantize, and the share of the adapter that it keeps.",
    ),
    click.option(
        "--plot", type=PATH, help="With --compare-types: draw it too, to a .png or .html file; needs the extra plot."
    ),
    click.option("--imatrix", type=PATH, help="With --quantize: an importance matrix of llama-imatrix, old or GGUF."),
    click.option(
        "--tensor-type",
        "tensor_types",
        type=_TensorType(),
        multiple=True,
        help="With --quantize: the type of tensors whose name a pattern is found in, as attn_v=q8_0. Repeatable.",
    ),
    click.option("--output-tensor-type", type=_TYPE, help="With --quantize: the type of output.weight."),
    click.option("--token-embedding-type", type=_TYPE, help="With --quantize: the type of token_embd.weight."),
    click.option(
        "--allow-requantize", is_flag=True, help="With --quantize: take a base that is quantised in other types."
    ),
    click.option(
        "--least-kept",
        type=click.FloatRange(0, 1),
        help="With --quantize: the share of its delta that every tensor has to keep; 0 accepts any loss. "
        f"Default: {Quantize('').least_kept:g}.",
    ),
)


def quantize_options(command: Command) -> Command:
    """Give a command the options, in this order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def quantize_of(
    file_type: str | None,
    imatrix: Path | None,
    tensor_types: tuple[tuple[str, str], ...],
    output_tensor_type: str | None,
    token_embedding_type: str | None,
    allow_requantize: bool,
    least_kept: float | None,
    *,
    compare_types: bool = False,
) -> Quantize | None:
    """What the options ask for; None without --quantize. Raises ConverterError for one that needs it.

    Types are compared of a plan in any of them.
    """
    asked = {
        "--imatrix": imatrix,
        "--tensor-type": tensor_types,
        "--output-tensor-type": output_tensor_type,
        "--token-embedding-type": token_embedding_type,
        "--allow-requantize": allow_requantize,
        "--least-kept": least_kept is not None,
    }
    if compare_types and file_type:
        raise ConverterError("--compare-types is about every type: leave --quantize out")
    file_type = next(iter(FILE_TYPES)) if compare_types else file_type
    if file_type is None:
        for option in (name for name, value in asked.items() if value):
            raise ConverterError(f"{option} needs --quantize")
        return None
    quantize = Quantize(
        file_type, imatrix, tensor_types, output_tensor_type, token_embedding_type, allow_requantize=allow_requantize
    )
    return quantize if least_kept is None else quantize._replace(least_kept=least_kept)


def check_plot(plot: Path | None, *, compare_types: bool) -> None:
    """Raise ConverterError where a plot was asked for that can't be drawn or written."""
    if plot is None:
        return
    if not compare_types:
        raise ConverterError("--plot needs --compare-types")
    if plot.suffix not in (".png", ".html"):
        raise ConverterError(f"{plot}: wanted the name of a .png or .html file")
    need_extra("plot", "matplotlib")
    from converter.writing.outputs import refuse_special

    refuse_special(plot)


def compared_types(planned: "ConversionPlan", style: str, plot: Path | None) -> None:
    """Print the comparison of all types, and draw it where that was asked for."""
    from converter.conversion.compared_types import compare_types
    from converter.report.printable import json_line
    from converter.report.types import types_data, types_text

    with _progress() as progress:
        found = compare_types(planned, progress)
    if plot:
        _draw(found, plot)
    click.echo(json_line(types_data(found)) if style == "json" else types_text(found))


def _draw(found: "tuple[TypeCompared, ...]", plot: Path) -> None:
    from converter.report.types_plot import types_html, types_png
    from converter.writing.whole_file import whole_file

    with whole_file(plot) as out:
        out.write((types_png if plot.suffix == ".png" else types_html)(found))


@contextmanager
def _progress() -> "Iterator[Progress]":
    """A bar on a terminal, silence in a pipe."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("comparing")
        yield lambda done, of: bar.update(task, completed=done, total=of)
