"""--initial-adapter: the adapter as it was before training, where that took something out of the base."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from converter.derive.adapter import Adapter, read_adapter
from converter.errors import ConverterError
from converter.read.checkpoint import is_adapter

HELP: Final = "The adapter as saved before training, where that changed the base (PiSSA, OLoRA, CorDA, LoRA-GA)."


def read_initial_adapter(directory: Path) -> Adapter:
    """Read it as an adapter of its own, which takes nothing out of the base. Raises ConverterError, status 2."""
    if not is_adapter(directory):
        raise ConverterError(f"{directory}: no adapter there; give the one that was saved before training")
    initial = read_adapter(directory)
    if initial.config is None:
        return initial
    plain = replace(initial.config, raw={**initial.config.raw, "init_lora_weights": True})
    return replace(initial, config=plain)
