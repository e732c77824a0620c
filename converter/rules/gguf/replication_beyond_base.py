"""layer_replication names layers that the base doesn't have.

Why it matters: the adapter belongs to a base with more layers. PEFT fails on it.

What to do: give the base that the adapter was trained on.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each range that ends beyond the base's layers."""
    if adapter.config is None or base.architecture is None or base.original:  # replicated: then the ranges fit
        return
    for begin, end in adapter.config.layer_replication:
        if end > base.dims["n_layer"]:
            found = f"has the range [{begin}, {end}]"
            yield Problem("layer_replication", f"{found}, but {base.label} has {base.dims['n_layer']} layers")


RULE = Rule("GG008", "replication-beyond-base", Severity.ERROR, BaseCheck(check), gguf=True)
