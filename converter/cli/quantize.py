"""The options of ``--quantize``, spelled as llama-quantize spells them, and what they mean together."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from converter.cli.options import PATH
from converter.diagnostics import Quantize
from converter.errors import ConverterError
from converter.planning.file_types import FILE_TYPES, TYPES

Command = Callable[..., Any]

_TYPE: Final = click.Choice(TYPES, case_sensitive=False)


class _TensorType(click.ParamType[tuple[str, str]]):
    """PATTERN=TYPE: a regular expression, looked for in a tensor's name, and a GGML type."""

    name = "PATTERN=TYPE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        pattern, _, name = str(value).rpartition("=")
        try:
            re.compile(pattern)
        except re.error as error:
            self.fail(f"{pattern!r} is no pattern: {error}", param)
        if not pattern:
            self.fail(f"{value!r}: wanted PATTERN=TYPE, as in attn_v=q8_0", param)
        return pattern.lower(), _TYPE.convert(name, param, ctx)


_OPTIONS: Final = (
    click.option(
        "--quantize",
        "file_type",
        type=click.Choice(tuple(FILE_TYPES), case_sensitive=False),
        help="Quantise the merged model as llama-quantize does: every tensor as llama.cpp's mixture of that name "
        "has it, straight from the merge.",
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
) -> Quantize | None:
    """What the options ask for; None without --quantize. Raises ConverterError for one that needs it."""
    asked = {
        "--imatrix": imatrix,
        "--tensor-type": tensor_types,
        "--output-tensor-type": output_tensor_type,
        "--token-embedding-type": token_embedding_type,
        "--allow-requantize": allow_requantize,
        "--least-kept": least_kept is not None,
    }
    if file_type is None:
        for option in (name for name, value in asked.items() if value):
            raise ConverterError(f"{option} needs --quantize")
        return None
    quantize = Quantize(
        file_type, imatrix, tensor_types, output_tensor_type, token_embedding_type, allow_requantize=allow_requantize
    )
    return quantize if least_kept is None else quantize._replace(least_kept=least_kept)
