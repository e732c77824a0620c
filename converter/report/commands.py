"""The adapter-to-gguf command of each deployment."""

import shlex
from typing import Final

from converter.diagnostics import Kind, Report

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
