"""A LoRA factor is no matrix, or the ranks of lora_A and lora_B disagree.

Why it matters: the product can't be formed. llama.cpp takes the rank from lora_b alone (get_scale in
src/llama-adapter.h), so a disagreement also changes the scale.

What to do: save the adapter again from the training run.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity

_FACTORS: Final = frozenset({"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"})


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each factor that is not two-dimensional, and each pair whose ranks differ."""
    for tensor in adapter.tensors:
        if tensor.role in _FACTORS and len(tensor.tensor.shape) != 2:
            yield Problem(tensor.key, f"has the shape {list(tensor.tensor.shape)}, wanted two dimensions")
    for pair in adapter.pairs:
        a, b = pair.a.tensor.shape, pair.b.tensor.shape
        if len(a) == len(b) == 2 and a[0] != b[1]:
            yield Problem(pair.module, f"{pair.a.role} has rank {a[0]}, {pair.b.role} has rank {b[1]}")


RULE = Rule("LO002", "misshaped-factor", Severity.ERROR, AdapterCheck(check))
