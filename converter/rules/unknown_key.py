"""A tensor's key is of no form that PEFT writes for a LoRA.

Why it matters: it may be a part of the trained change, and a tool that passes over it serves another model.

What to do: save the adapter with PEFT's save_pretrained. Keys of other libraries (lora_down and lora_up, _orig_mod,
module.) must be renamed to PEFT's first.
"""

from collections.abc import Iterator

from converter.diagnostics import AdapterCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each unknown key of a LoRA; other methods' keys are unsupported-peft-type."""
    if adapter.config is not None and adapter.config.peft_type not in (None, "LORA"):
        return
    for tensor in adapter.tensors:
        if tensor.role == "unknown":
            yield Problem(tensor.key, "is no key that PEFT writes for a LoRA")


RULE = Rule("LO004", "unknown-key", Severity.ERROR, AdapterCheck(check))
