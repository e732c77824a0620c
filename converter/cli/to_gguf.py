"""``adapter-to-gguf``: a PEFT adapter to GGUF that stock llama.cpp loads."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from converter.cli.command import Command
from converter.cli.modelfile import check_modelfile, ollama_command, write_modelfile
from converter.cli.on_hub import adapter_named, base_named
from converter.cli.options import (
    ADAPTER,
    BASE,
    BASE_BY_NAME,
    DOWNLOAD,
    FORMAT,
    INITIAL_ADAPTER,
    PATH,
    RENAME_KEYS,
    SPLIT_SIZE,
    TEXT_ONLY,
)
from converter.cli.quantize import check_plot, compared_types, quantize_of, quantize_options
from converter.cli.refusals import refusals_shown
from converter.derive.adapter import Adapter, text_part, with_renamed_keys
from converter.derive.base_model import BaseModel
from converter.derive.locate import locate_base, read_initial_adapter
from converter.derive.model_names import last_part, public_name
from converter.diagnostics import HOSTS, Deployment
from converter.errors import ConverterError
from converter.planning.outtypes import OUTTYPES
from converter.read.files import real
from converter.report.printable import json_line
from converter.version import __version__

if TYPE_CHECKING:
    from converter.planning.conversion_plan import ConversionPlan
    from converter.read.hub_address import Address
    from converter.writing.gguf_file import Progress

COMMAND = "adapter-to-gguf"

_HELP = """Convert the PEFT adapter at PATH to GGUF that stock llama.cpp loads.

Every tensor of the adapter is applied exactly, or nothing is written and the exit status is not 0: 1 the adapter can't
be deployed this way (with the rule's code), 2 the work could not be done, 3 there is no adapter at PATH.
"""


@click.command(COMMAND, cls=Command, help=_HELP)
@click.argument("path", type=ADAPTER)
@click.option(
    "--base",
    type=BASE_BY_NAME,
    help="Base model: a GGUF file, a Hugging Face directory, or ORG/NAME[@REVISION].",
)
@click.option("--download", is_flag=True, help=DOWNLOAD)
@click.option(
    "--checkpoint",
    type=BASE,
    help="With --to model, of a GGUF whose architecture has no table here: the Hugging Face directory that it was made "
    "from. What the adapter changes is found by comparing the two.",
)
@click.option(
    "--to",
    type=click.Choice(["lora", "model"]),
    help="lora: a LoRA GGUF for llama.cpp's --lora (default). model: one merged GGUF (default with --untie).",
)
@click.option(
    "--untie", is_flag=True, help="Give the model a head of its own, output.weight, apart from the embedding."
)
@click.option("-o", "--output", type=PATH, help="File to write; a directory for --untie --to lora.")
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
@quantize_options
@click.option(
    "--split-max-size",
    type=SPLIT_SIZE,
    metavar="N(M|G)",
    help="Write a larger model as several files, NAME-00001-of-00003.gguf and so on, each of at most so many bytes "
    "of tensors (M is 1000 * 1000, as llama.cpp counts).",
)
@click.option("--modelfile", is_flag=True, help="Write an Ollama Modelfile beside the merged model.")
@click.option("--initial-adapter", type=PATH, help=INITIAL_ADAPTER)
@click.option("--rename-keys", is_flag=True, help=RENAME_KEYS)
@click.option("--text-only", is_flag=True, help=TEXT_ONLY)
@click.option("--dry-run", is_flag=True, help="Print the plan and the ledger, write nothing.")
@FORMAT
@click.version_option(__version__)
def main(
    path: "Path | Address",
    base: "Path | Address | None",
    download: bool,
    checkpoint: Path | None,
    to: Literal["lora", "model"] | None,
    untie: bool,
    output: Path | None,
    outtype: str,
    host: str | None,
    file_type: str | None,
    compare_types: bool,
    plot: Path | None,
    imatrix: Path | None,
    tensor_types: tuple[tuple[str, str], ...],
    output_tensor_type: str | None,
    token_embedding_type: str | None,
    allow_requantize: bool,
    least_kept: float | None,
    split_max_size: int | None,
    modelfile: bool,
    initial_adapter: Path | None,
    rename_keys: bool,
    text_only: bool,
    dry_run: bool,
    style: str,
) -> None:
    _spare_the_processor()
    quantize = quantize_of(
        file_type,
        imatrix,
        tensor_types,
        output_tensor_type,
        token_embedding_type,
        allow_requantize,
        least_kept,
        compare_types=compare_types,
    )
    deployment = Deployment(to or ("model" if untie or quantize else "lora"), untie, outtype, host, quantize)
    check_plot(plot, compare_types=compare_types)
    if host and not untie:
        raise ConverterError("--host needs --untie: it is for a head apart from the embedding")
    if modelfile and deployment.to == "lora":
        raise ConverterError("--modelfile needs --to model: from 0.34.1 on `ollama create` takes no LoRA GGUF")
    if split_max_size and (deployment.to == "lora" or modelfile):
        raise ConverterError("--split-max-size needs --to model, and no --modelfile: that names one file")
    adapter = adapter_named(path, download=download)
    adapter = with_renamed_keys(adapter) if rename_keys else adapter
    adapter = text_part(adapter) if text_only else adapter
    if initial_adapter:
        adapter = replace(adapter, initial=read_initial_adapter(initial_adapter))
    model = _base(adapter, base, checkpoint, deployment, download=download)
    output = output or _default_output(adapter, deployment)
    with refusals_shown(style), _planned(adapter, model, deployment, output.parent) as planned:
        if modelfile:
            check_modelfile(planned, output)
        if compare_types:
            compared_types(planned, style, plot)
        elif dry_run:
            _print_plan(planned, style)
        else:
            _write(planned, output, style, modelfile=modelfile, split_max_size=split_max_size)


def _spare_the_processor() -> None:
    # A second BLAS thread only spins (writing/one_blas_thread.py): before numpy is imported, there is none.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A vocabulary is hundreds of thousands of tuples, none of them in a cycle.
    gc.set_threshold(100_000)


def _base(
    adapter: Adapter,
    given: "Path | Address | None",
    checkpoint: Path | None,
    deployment: Deployment,
    *,
    download: bool,
) -> BaseModel:
    """The base that is given, or that the adapter names, with its weights where they are needed."""
    if checkpoint and not given:
        raise ConverterError("--checkpoint needs --base: the GGUF that was made from it")
    if given is None:
        return locate_base(adapter)
    from converter.conversion import needs_weights

    found = base_named(given, download=download, weights=needs_weights(adapter, deployment))
    if checkpoint:
        from converter.derive.untabled import with_checkpoint

        found = with_checkpoint(found, checkpoint)
    return found


def _planned(adapter: Adapter, base: BaseModel, deployment: Deployment, scratch: Path) -> "ConversionPlan":
    from converter.conversion import plan

    if base.checkpoint is None or not sys.stderr.isatty():
        return plan(adapter, base, deployment, scratch=scratch)
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("comparing")
        tell = lambda done, of: bar.update(task, completed=done, total=of)  # noqa: E731
        return plan(adapter, base, deployment, scratch=scratch, progress=tell)


def _print_plan(planned: "ConversionPlan", style: str) -> None:
    from converter.report.conversion import conversion_data, plan_text

    click.echo(json_line(conversion_data(planned, None)) if style == "json" else plan_text(planned))


def _default_output(adapter: Adapter, deployment: Deployment) -> Path:
    name = last_part(public_name(real(adapter.path)))
    if deployment.kind == "untie-lora":
        return Path(f"{name}-gguf")
    if deployment.quantize:
        return Path(f"{name}-{deployment.quantize.file_type}.gguf")
    return Path(f"{name}-{'lora' if deployment.to == 'lora' else 'model'}.gguf")


def _write(planned: "ConversionPlan", output: Path, style: str, *, modelfile: bool, split_max_size: int | None) -> None:
    from converter.conversion import write
    from converter.report.conversion import conversion_data, written_text

    with _progress(planned.nbytes) as progress:
        written = write(planned, output, progress, split_max_size=split_max_size)
    output = written[0].path if written[0].shards else output
    if modelfile:
        write_modelfile(planned, output)
    if style == "json":
        click.echo(json_line(conversion_data(planned, written)))
    else:
        click.echo(written_text(planned, written, _following(planned, output, modelfile=modelfile)))


def _following(planned: "ConversionPlan", output: Path, *, modelfile: bool) -> Iterator[str]:
    """What to run next: the proof, then what serves it. --host native writes for a patched llama.cpp."""
    from converter.report.commands import proof_command, serving_command

    yield f"next: {proof_command(planned, output)}"
    if planned.deployment.host != "native":
        yield f"serve: {serving_command(planned, output)}"
    if modelfile:
        yield f"serve: {ollama_command(output)}"


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
