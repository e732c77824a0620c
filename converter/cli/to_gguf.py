"""``adapter-to-gguf``: a PEFT adapter to GGUF that stock llama.cpp loads."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Literal

import click

from converter import __version__
from converter.cli.bases import find_base
from converter.cli.convertible import convertible
from converter.cli.ending import one_clear_line
from converter.cli.initial_adapter import HELP as INITIAL_HELP
from converter.cli.refusals import refusals_shown
from converter.derive.adapter import Adapter, read_adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import HOSTS, Deployment
from converter.errors import NOTHING_LOOKED_AT, ConverterError
from converter.planning.outtypes import OUTTYPES
from converter.read.checkpoint import find_adapters

if TYPE_CHECKING:
    from converter.planning.conversion_plan import ConversionPlan
    from converter.writing.gguf_file import Progress

COMMAND = "adapter-to-gguf"

_PATH = click.Path(path_type=Path, readable=False)  # click's own check would end in a usage text

_HELP = """Convert the PEFT adapter at PATH to GGUF that stock llama.cpp loads.

Every tensor of the adapter is applied exactly, or nothing is written and the exit status is not 0: 1 the adapter can't
be deployed this way (with the rule's code), 2 the work could not be done, 3 there is no adapter at PATH.
"""


@click.command(help=_HELP)
@click.argument("path", type=_PATH)
@click.option("--base", type=_PATH, help="Base model: a GGUF file or a Hugging Face directory.")
@click.option(
    "--to",
    type=click.Choice(["lora", "model"]),
    help="lora: a LoRA GGUF for llama.cpp's --lora (default). model: one merged GGUF (default with --untie).",
)
@click.option(
    "--untie", is_flag=True, help="Give the model a head of its own, output.weight, apart from the embedding."
)
@click.option("-o", "--output", type=_PATH, help="File to write; a directory for --untie --to lora.")
@click.option(
    "--outtype",
    type=click.Choice(OUTTYPES),
    default="auto",
    show_default=True,
    help="Type of the touched tensors. auto: F32 stays, F16 and BF16 become F16, quantised becomes Q8_0.",
)
@click.option(
    "--host",
    type=click.Choice(HOSTS),
    help="With --untie, of Gemma 1 and 2, whose own graph in llama.cpp reads no head: the graph that runs them. "
    "auto: gemma3; wide or grok for Gemma 2. native: none, for a patched llama.cpp.",
)
@click.option("--modelfile", is_flag=True, help="Write an Ollama Modelfile beside the merged model.")
@click.option("--initial-adapter", type=_PATH, help=INITIAL_HELP)
@click.option("--dry-run", is_flag=True, help="Print the plan and the ledger, write nothing.")
@click.option("--format", "style", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.version_option(__version__)
def main(
    path: Path,
    base: Path | None,
    to: Literal["lora", "model"] | None,
    untie: bool,
    output: Path | None,
    outtype: str,
    host: str | None,
    modelfile: bool,
    initial_adapter: Path | None,
    dry_run: bool,
    style: str,
) -> None:
    deployment = Deployment(to or ("model" if untie else "lora"), untie, outtype, host)
    with one_clear_line(COMMAND):
        if host and not untie:
            raise ConverterError("--host needs --untie: it is for a head apart from the embedding")
        from converter.conversion import plan

        if modelfile and deployment.to == "lora":
            raise ConverterError("--modelfile needs --to model: Ollama doesn't serve LoRA GGUF files")
        given, model = _read(path, base)
        output = output or _default_output(given, deployment)
        converted = convertible(given, model, deployment, initial_adapter, output.parent)
        with refusals_shown(style), converted as adapter:
            conversion = plan(adapter, model, deployment)
            if dry_run:
                _print_plan(conversion, style)
            else:
                _write(conversion, adapter, model, output, style, modelfile=modelfile)


def _read(path: Path, base: Path | None) -> tuple[Adapter, BaseModel]:
    found = find_adapters(path)
    if not found:
        raise ConverterError(f"{path}: no adapter there (no adapter_config.json)", status=NOTHING_LOOKED_AT)
    if len(found) > 1:
        names = ", ".join(str(directory) for directory in found[:3])
        raise ConverterError(f"{path}: holds {len(found)} adapters ({names}, ...); give one of them")
    adapter = read_adapter(found[0])
    model = find_base(base, adapter)
    if model is None:
        named = adapter.config.base_model_name_or_path if adapter.config else None
        raise ConverterError(f"{found[0]}: its base {named!r} is not on this machine; give it with --base")
    return adapter, model


def _print_plan(conversion: "ConversionPlan", style: str) -> None:
    from converter.report.conversion import conversion_data, plan_text

    click.echo(json.dumps(conversion_data(conversion, None)) if style == "json" else plan_text(conversion))


def _default_output(adapter: Adapter, deployment: Deployment) -> Path:
    name = adapter.path.resolve().name
    if deployment.kind == "untie-lora":
        return Path(f"{name}-gguf")
    return Path(f"{name}-{'lora' if deployment.to == 'lora' else 'model'}.gguf")


def _write(
    conversion: "ConversionPlan", adapter: Adapter, base: BaseModel, output: Path, style: str, *, modelfile: bool
) -> None:
    from converter.conversion import write
    from converter.report.conversion import conversion_data, written_text

    with _progress(conversion.nbytes) as progress:
        written = write(conversion, adapter, base, output, progress)
    if modelfile:
        _write_modelfile(output)
    if style == "json":
        click.echo(json.dumps(conversion_data(conversion, written)))
    else:
        click.echo(written_text(conversion, written, _following(adapter, base, conversion.deployment, output)))


@contextmanager
def _progress(nbytes: int) -> "Iterator[Progress]":
    """A bar on a terminal, silence in a pipe."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("writing"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("writing", total=nbytes)
        yield lambda n: bar.advance(task, n)


def _write_modelfile(output: Path) -> None:
    from converter.writing.whole_file import whole_file

    with whole_file(output.with_suffix(".Modelfile")) as file:
        file.write(f"FROM ./{output.name}\n".encode())


def _following(adapter: Adapter, base: BaseModel, deployment: Deployment, output: Path) -> str:
    """The adapter-verify command that proves this output."""
    from converter.planning.untied import LORA_NAME, UNTIED_BASE_NAME

    start = f"adapter-verify {quote(str(adapter.path))} --base {quote(str(base.path))}"
    match deployment.kind:
        case "untie-lora":
            return (
                f"{start} --lora {quote(str(output / LORA_NAME))} --base-gguf {quote(str(output / UNTIED_BASE_NAME))}"
            )
        case "lora":
            gguf = quote(str(base.path)) if base.format == "gguf" else "BASE.gguf"
            return f"{start} --lora {quote(str(output))} --base-gguf {gguf}"
        case _:
            return f"{start} --model {quote(str(output))}"
