"""A tensor's key is of no form that PEFT writes for the adapter's method.

Why it matters: it may be a part of the trained change, and a tool that passes over it serves another model.

What to do: save the adapter with PEFT's save_pretrained. Keys of other libraries (lora_down and lora_up, _orig_mod,
module.) must be renamed to PEFT's first.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.peft_methods import peft_method
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each unknown key; those of methods that are not converted are unsupported-peft-type."""
    method = adapter.config.peft_type or "LORA" if adapter.config else "LORA"
    if method != "LORA" and peft_method(method) is None:
        return
    for tensor in adapter.tensors:
        if tensor.role == "unknown":
            yield Problem(tensor.key, f"is no key that PEFT writes for {method}")


RULE = Rule("LO004", "unknown-key", Severity.ERROR, AdapterCheck(check))
