"""The commands to run next: the conversion of each deployment; the proof of one, and its serving."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from converter.diagnostics import Kind, Report
from converter.shell import as_typed

if TYPE_CHECKING:
    from converter.planning.conversion_plan import ConversionPlan
    from converter.read.hub_address import Address, HubAddress

_SCHEMES: Final = ("hf://", "s3://", "gs://")
# --untie alone means --to model; a directory takes the two files of --untie --to lora.
_OPTIONS: Final[dict[Kind, tuple[str, ...]]] = {
    "lora": ("-o", "lora.gguf"),
    "model": ("--to", "model", "-o", "model.gguf"),
    "untie-lora": ("--untie", "--to", "lora", "-o", "lora-gguf"),
    "untie-model": ("--untie", "-o", "model.gguf"),
}


def command(report: Report, kind: Kind) -> str | None:
    """The command that makes this deployment; None where a finding forbids it, or no base says that it can be."""
    if report.base is None or report.blockers(kind):
        return None
    if isinstance(report.path, Path):
        return conversion_command(str(report.path), report.base, kind, *report.read_with)
    return _of_remote(report.path, report.base, kind, report.read_with)


def _of_remote(address: "Address", base: str, kind: Kind, read_with: tuple[str, ...]) -> str:
    """One on a hub is downloaded first, by its commit; for one in a bucket that is an option of the conversion."""
    from converter.read.hub_address import HubAddress

    if not isinstance(address, HubAddress):
        also = () if base.startswith(_SCHEMES) else ("--download",)
        return conversion_command(str(address), base, kind, *also, *read_with)
    here = address.repository.partition("/")[2]
    adapter = f"{here}/{address.folder}" if address.folder else here
    return f"{download_command(address, here)} && {conversion_command(adapter, base, kind, *read_with)}"


def download_command(address: "HubAddress", directory: str) -> str:
    """The command that brings an adapter on a hub into ``directory``: huggingface_hub's own."""
    only = ("--include", f"{address.folder}/*") if address.folder else ()
    return as_typed(
        ("hf", "download", address.repository, "--revision", address.revision, *only, "--local-dir", directory)
    )


def conversion_command(adapter: str, base: str, kind: Kind, *read_with: str) -> str:
    """The command that makes this deployment of an adapter, which is ``read_with`` some options."""
    return as_typed(("adapter-to-gguf", adapter, "--base", *_base_options(base), *read_with, *_OPTIONS[kind]))


def _base_options(base: str) -> tuple[str, ...]:
    """A base as a command is given it: one on a hub has to be fetched."""
    return (base, "--download") if base.startswith(_SCHEMES) else (base,)


def proof_command(plan: "ConversionPlan", output: Path) -> str:
    """The adapter-verify command that proves what a plan wrote to ``output``."""
    base = ("ORIGINAL_BASE",) if plan.base.quantization else _base_options(str(plan.base.shown_path))
    start = ["adapter-verify", str(plan.adapter.path), "--base", *base]
    start += plan.adapter.read_with
    if plan.adapter.initial and not plan.scratch:  # not what PEFT computed, and computes again for the proof
        start += ["--initial-adapter", str(plan.adapter.initial.path)]
    model, lora = _served(plan, output)
    if plan.base.checkpoint:
        start[3] = str(plan.base.checkpoint.path)
        return as_typed((*start, "--model", model, "--base-gguf", str(plan.base.path)))
    return as_typed((*start, "--lora", lora, "--base-gguf", model) if lora else (*start, "--model", model))


def serving_command(plan: "ConversionPlan", output: Path) -> str:
    """The llama-server command that serves what a plan wrote to ``output``."""
    model, lora = _served(plan, output)
    return as_typed(("llama-server", "-m", model, *(("--lora", lora) if lora else ())))


def _served(plan: "ConversionPlan", output: Path) -> tuple[str, str | None]:
    """The model and the LoRA that llama.cpp is given."""
    if plan.deployment.to == "model":
        return str(output), None
    if plan.deployment.untie:
        model, lora = (str(output / file.name) for file in plan.files)
        return model, lora
    return str(plan.base.path) if plan.base.format == "gguf" else "BASE.gguf", str(output)
