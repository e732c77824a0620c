"""A tensor's key is of no form that PEFT writes for the adapter's method.

Why it matters: it may be a part of the trained change, and a tool that passes over it serves another model. PEFT does:
it loads nothing of a wrapped model's keys (_orig_mod, module., FSDP's), and serves the base with a warning.

What to do: save the adapter with PEFT's save_pretrained, of the model without its wrapper. Keys that differ from PEFT's
in their names alone are read under PEFT's with --rename-keys; each is in the ledger.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.adapter_keys import foreign_key
from converter.derive.peft_methods import peft_method
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each unknown key; those of methods that are not converted are unsupported-peft-type."""
    method = adapter.config.peft_type or "LORA" if adapter.config else "LORA"
    if method != "LORA" and peft_method(method) is None:
        return
    for tensor in adapter.tensors:
        if tensor.role == "unknown":
            yield Problem(tensor.key, _what(tensor.key, adapter) or f"is no key that PEFT writes for {method}")


def _what(key: str, adapter: Adapter) -> str:
    foreign = foreign_key(key, adapter.config)
    if adapter.config and adapter.config.mlx is not None and (foreign is None or foreign.name):
        return "is no key that mlx_lm writes of a linear"
    if foreign is None:
        return ""
    way = f"; --rename-keys reads it as {foreign.name}" if foreign.name else ""
    return f"{foreign.what}: PEFT loads nothing of it{way}"


RULE = Rule("LO004", "unknown-key", Severity.ERROR, AdapterCheck(check))
