"""Layers were replicated (layer_replication) in an architecture that alternates local and global attention.

Why it matters: llama.cpp knows which layers attend locally by their number alone. A layer that moves to another number
would get the other kind of attention.

What to do: train on the base as it is, or on an architecture whose layers are alike.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the layer map of such an architecture."""
    architecture = base.architecture
    if adapter.config and adapter.config.layer_replication and architecture and architecture.graph.alternates:
        message = f"moves layers of {base.model_type}, which are local or global by their number"
        yield Problem("layer_replication", message)


RULE = Rule("GG007", "replication-breaks-windows", Severity.ERROR, BaseCheck(check), gguf=True)
