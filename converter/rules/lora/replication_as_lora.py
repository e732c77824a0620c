"""The adapter was trained on a base whose layers were replicated (layer_replication).

Why it matters: its deltas belong to layers that the base doesn't have. As a LoRA file it fails to load where the model
grew; where the layers were only put in another order it is silently wrong.

What to do: merge it with `adapter-to-gguf ADAPTER --base BASE --to model -o model.gguf`; the model grows.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import LORA, AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield the layer map."""
    ranges = adapter.config.layer_replication if adapter.config else ()
    if ranges:
        yield Problem("layer_replication", f"is {[list(r) for r in ranges]}: the model has layers of its own", LORA)


RULE = Rule("LO013", "replication-as-lora", Severity.ERROR, AdapterCheck(check), gguf=True)
