"""A part beside the factors has another shape than they have: DoRA magnitudes, LoRA biases, token rows.

Why it matters: it belongs to another module, or the file was put together by hand. PEFT can't load it.

What to do: save the adapter again with PEFT's save_pretrained.
"""

from collections.abc import Iterator
from math import prod

from converter.derive.adapter import Adapter, LoraPair
from converter.derive.adapter_tensors import AdapterTensor
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each vector of a pair whose length is not the pair's, and rows that are not one for each token."""
    for pair in adapter.pairs:
        if (pair.magnitude or pair.b_bias) and pair.is_well_shaped:
            yield from _vectors(pair)
    for rows in adapter.token_rows:
        shape, wanted = rows.tensor.tensor.shape, len(rows.indices)
        if len(shape) != 2 or shape[0] != wanted:
            yield Problem(rows.tensor.key, f"has the shape {list(shape)}, trainable_token_indices names {wanted} rows")
        elif len(set(rows.indices)) < wanted:
            yield Problem(rows.tensor.key, "has two rows for one token (trainable_token_indices)")


def _vectors(pair: LoraPair) -> Iterator[Problem]:
    # One magnitude for each output row; of an embedding, for each column (peft/tuners/lora/dora.py).
    for vector, wanted in ((pair.magnitude, pair.shape[-1 if pair.is_embedding else 0]), (pair.b_bias, pair.shape[0])):
        if vector and not _is_vector(vector, wanted):
            yield Problem(vector.key, f"has the shape {list(vector.tensor.shape)}, wanted {wanted} numbers")


def _is_vector(vector: AdapterTensor, n: int) -> bool:
    return len(vector.tensor.shape) == 1 and prod(vector.tensor.shape) == n


RULE = Rule("LO016", "misshaped-part", Severity.ERROR, AdapterCheck(check))
