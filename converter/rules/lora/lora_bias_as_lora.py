"""The adapter has biases of lora_B (lora_bias=True): each module gets a bias beside its delta.

Why it matters: a LoRA GGUF has no place for a bias. convert_lora_to_gguf.py refuses it (`Unexpected name`).

What to do: merge it with `adapter-to-gguf ADAPTER --base BASE --to model -o model.gguf`.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import LORA, AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield the first such bias: one stands for all."""
    keys = [pair.b_bias.key for pair in adapter.pairs if pair.b_bias]
    if keys:
        yield Problem(keys[0], f"adds a bias to its module (lora_bias), and so do {len(keys) - 1} more", LORA)


RULE = Rule("LO012", "lora-bias-as-lora", Severity.ERROR, AdapterCheck(check), gguf=True)
