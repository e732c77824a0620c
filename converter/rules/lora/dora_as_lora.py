"""The adapter is a DoRA: magnitude vectors rescale every row of the merged weight.

Why it matters: a LoRA GGUF adds a delta, it can't rescale what is there. convert_lora_to_gguf.py refuses the
magnitudes (`Unexpected name`); without them the adapter is another one.

What to do: merge it with `adapter-to-gguf ADAPTER --base BASE --to model -o model.gguf`.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import LORA, AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield the first magnitude vector: one stands for all."""
    keys = [pair.magnitude.key for pair in adapter.pairs if pair.magnitude]
    if keys:
        yield Problem(keys[0], f"rescales the rows of a weight (DoRA), and so do {len(keys) - 1} more", LORA)


RULE = Rule("LO011", "dora-as-lora", Severity.ERROR, AdapterCheck(check), gguf=True)
