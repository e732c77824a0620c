"""``adapter-verify``: proof that a GGUF serves an adapter as PEFT does."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from converter.cli.command import Command
from converter.cli.extras import need_extra
from converter.cli.on_hub import adapter_named, base_path
from converter.cli.options import ADAPTER, BASE_BY_NAME, DOWNLOAD, FORMAT, INITIAL_ADAPTER, PATH, RENAME_KEYS, TEXT_ONLY
from converter.derive.adapter import text_part, with_renamed_keys
from converter.derive.locate import read_initial_adapter
from converter.errors import JUDGED_BAD, ConverterError
from converter.version import __version__

if TYPE_CHECKING:
    from converter.read.hub_address import Address
    from converter.verification.prompts import Prompts
    from converter.verification.verification import Deployed, Progress, Verification

COMMAND = "adapter-verify"

_HELP = """Prove that a GGUF made from the PEFT adapter at ADAPTER serves it as PEFT does.

Logits of real llama.cpp are compared with those of unmerged PEFT, and every tensor with PEFT's weights. Exit status:
0 proven; 1 not proven, which includes a file that llama.cpp refuses or aborts on; 2 it could not be found out;
3 there is no adapter at ADAPTER.
"""
_EXTRA = ("numpy", "peft", "safetensors", "torch", "transformers", "xllamacpp")


@click.command(COMMAND, cls=Command, help=_HELP)
@click.argument("adapter", type=ADAPTER)
@click.option(
    "--base",
    type=BASE_BY_NAME,
    required=True,
    help="What PEFT gets: a Hugging Face directory, ORG/NAME[@REVISION], or a GGUF file.",
)
@click.option("--download", is_flag=True, help=DOWNLOAD)
@click.option("--model", type=PATH, help="The merged GGUF to prove.")
@click.option("--lora", type=PATH, help="The LoRA GGUF to prove; needs --base-gguf.")
@click.option(
    "--base-gguf",
    type=PATH,
    help="The GGUF that a LoRA is served on, or that a merged model was made from. Default: --base, if it is a GGUF.",
)
@click.option(
    "--quantized-base",
    type=PATH,
    help="A GGUF without the adapter, such as the base quantised as --model is: what it does is shown beside.",
)
@click.option("--initial-adapter", type=PATH, help=INITIAL_ADAPTER)
@click.option("--rename-keys", is_flag=True, help=RENAME_KEYS)
@click.option("--text-only", is_flag=True, help=TEXT_ONLY)
@click.option("--prompts", type=PATH, help="Texts to compare on, one a line. Default: a built-in set.")
@click.option("--tokens", type=PATH, help="Token ids to compare on, one sequence a line.")
@FORMAT
@click.version_option(__version__)
def main(
    adapter: "Path | Address",
    base: "Path | Address",
    download: bool,
    model: Path | None,
    lora: Path | None,
    base_gguf: Path | None,
    quantized_base: Path | None,
    initial_adapter: Path | None,
    rename_keys: bool,
    text_only: bool,
    prompts: Path | None,
    tokens: Path | None,
    style: str,
) -> None:
    if prompts and tokens:
        raise ConverterError("give --prompts or --tokens, not both")
    found = adapter_named(adapter, download=download)
    if rename_keys:
        found = with_renamed_keys(found)
    if text_only:
        found = text_part(found)
    if initial_adapter:
        found = replace(found, initial=read_initial_adapter(initial_adapter))
    need_extra("verify", *_EXTRA)
    base = base_path(base, download=download)
    # Before their import: no model hub is asked, no bar but ours is drawn, no thread spins while another works.
    os.environ.update({"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "OMP_WAIT_POLICY": "PASSIVE"})
    if download:
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE = True  # it has read the environment when it was imported
    from converter.verification.verification import verify

    deployed = _deployed(model, lora, base_gguf or (base if base.is_file() else None), quantized_base)
    with _progress() as progress:
        verification = verify(found, base, deployed, prompts=_prompts(prompts, tokens), progress=progress)
    _print(verification, style)
    if not verification.passed:
        sys.exit(JUDGED_BAD)


def _deployed(model: Path | None, lora: Path | None, base_gguf: Path | None, quantized_base: Path | None) -> "Deployed":
    from converter.verification.verification import DeployedLora, DeployedModel

    if model and not lora:
        return DeployedModel(model, base_gguf, quantized_base)
    if lora and not model:
        if quantized_base:
            raise ConverterError(
                "--quantized-base goes with --model; a LoRA is compared with the --base-gguf it is served on"
            )
        if base_gguf is None:
            raise ConverterError("--lora needs --base-gguf: the GGUF that the LoRA is served on")
        return DeployedLora(lora, base_gguf)
    raise ConverterError("give what to prove: --model GGUF, or --lora GGUF --base-gguf GGUF")


def _prompts(prompts: Path | None, tokens: Path | None) -> "Prompts":
    from converter.verification.prompts import PromptFile, TokenFile

    if prompts:
        return PromptFile(prompts)
    return TokenFile(tokens) if tokens else None


@contextmanager
def _progress() -> "Iterator[Progress]":
    """One bar on a terminal, silence in a pipe."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("")
        yield lambda step, done, of: bar.update(task, description=step, completed=done, total=of)


def _print(verification: "Verification", style: str) -> None:
    from converter.report.printable import json_line
    from converter.verification.verdict import verdict_data, verdict_text

    click.echo(json_line(verdict_data(verification)) if style == "json" else verdict_text(verification))
