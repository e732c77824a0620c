"""Rows of the embedding or the head were replaced (trainable_token_indices).

Why it matters: a LoRA GGUF adds deltas, it can't replace rows. convert_lora_to_gguf.py refuses such an adapter
(`Unexpected name`).

What to do: merge it with `adapter-to-gguf ADAPTER --base BASE --to model -o model.gguf`.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import LORA, AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each module with such rows."""
    for rows in adapter.token_rows:
        yield Problem(rows.tensor.key, f"replaces {len(rows.indices)} rows of {rows.module}", LORA)


RULE = Rule("HD012", "token-rows-as-lora", Severity.ERROR, AdapterCheck(check), gguf=True)
