"""A saved base layer has no LoRA beside it, or belongs to a module whose base PEFT doesn't save.

Why it matters: PEFT saves base layers only beside a LoRA: a head or an embedding with its bias, as the tensors it was
trained on, and biases that were trained (bias="all" or "lora_only"). One alone is a part of something that isn't
there, or a change of the base that no delta accounts for.

What to do: save the adapter again with PEFT's save_pretrained.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.adapter_keys import Role
from converter.derive.adapter_tensors import AdapterTensor
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity
from converter.rules.ends import ENDS

# Beside the pairs of a LoRA: other methods' tensors, token rows, and a tied head's, which repeat the embedding's.
_OVER_A_BASE: Final = frozenset[Role]({"tuner", "trainable_tokens_delta", "copy"})


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each base layer that is out of place."""
    with_lora = {pair.module for pair in adapter.pairs} | {t.module for t in adapter.tensors if t.role in _OVER_A_BASE}
    for tensor in adapter.base_layers:
        if not _is_expected(adapter, tensor):
            yield Problem(tensor.key, f"is {tensor.role} of {tensor.module}, wanted none")
        elif tensor.module not in with_lora:
            yield Problem(tensor.key, f"has no LoRA of {tensor.module} beside it")


def _is_expected(adapter: Adapter, tensor: AdapterTensor) -> bool:
    trains_biases = adapter.config is not None and adapter.config.bias != "none"
    return tensor.module in ENDS or (tensor.role == "base_layer.bias" and trains_biases)


RULE = Rule("HD009", "misplaced-base-layer", Severity.ERROR, AdapterCheck(check))
