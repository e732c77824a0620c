"""The commands to run next: the conversion of each deployment, and the proof of one."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from converter.diagnostics import Kind, Report

if TYPE_CHECKING:
    from converter.planning.conversion_plan import ConversionPlan

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
    return conversion_command(str(report.path), report.base, kind)


def conversion_command(adapter: str, base: str, kind: Kind) -> str:
    """The command that makes this deployment of an adapter."""
    return shlex.join(("adapter-to-gguf", adapter, "--base", base, *_OPTIONS[kind]))


def proof_command(plan: "ConversionPlan", output: Path) -> str:
    """The adapter-verify command that proves what a plan wrote to ``output``."""
    start = ("adapter-verify", str(plan.adapter.path), "--base", str(plan.base.path))
    if plan.deployment.to == "model":
        return shlex.join((*start, "--model", str(output)))
    if plan.deployment.untie:
        base, lora = (str(output / file.name) for file in plan.files)
        return shlex.join((*start, "--lora", lora, "--base-gguf", base))
    gguf = str(plan.base.path) if plan.base.format == "gguf" else "BASE.gguf"
    return shlex.join((*start, "--lora", str(output), "--base-gguf", gguf))
