"""A saved base layer has no LoRA beside it, or belongs to a module that is neither head nor embedding.

Why it matters: PEFT saves base layers only beside the LoRA of a head or an embedding, as the tensor it was trained
on. One alone is a part of something that isn't there, or a change of the base that no delta accounts for.

What to do: save the adapter again with PEFT's save_pretrained.
"""

from collections.abc import Iterator

from converter.diagnostics import AdapterCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter
from converter.rules.ends import ENDS


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each base layer that is out of place."""
    with_lora = {pair.module for pair in adapter.pairs}
    for tensor in adapter.base_layers:
        if tensor.role == "base_layer.bias" or tensor.module not in ENDS:
            yield Problem(tensor.key, f"is {tensor.role} of {tensor.module}, wanted none")
        elif tensor.module not in with_lora:
            yield Problem(tensor.key, f"has no LoRA of {tensor.module} beside it")


RULE = Rule("HD009", "misplaced-base-layer", Severity.ERROR, AdapterCheck(check))
