"""lm_head carries a LoRA, but the base's head and embedding are one tensor.

Why it matters: merging writes the head's delta into the shared tensor and corrupts the embedding too (PEFT's
merge_and_unload only warns, and safe_merge changes nothing), llama.cpp refuses the LoRA on a tied base, and
convert_lora_to_gguf.py drops the head for Gemma 1 and 2 and reports success. On a tiny Gemma a dropped head left 0.88
of the adapter's effect undone.

What to do: give the model its own head with `adapter-to-gguf ADAPTER --base BASE --untie -o model.gguf`, or train
again without lm_head (target_modules="all-linear" leaves it out).
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import HEAD
from converter.diagnostics import TIED, BaseCheck, Problem, Rule, Severity
from converter.rules.ends import lora_on


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each LoRA on the head of a tied base that is not half of a tied pair."""
    if not base.tied or adapter.is_tied_pair:
        return
    for pair in lora_on(adapter, HEAD):
        found = f"lm_head has a LoRA of rank {pair.rank}"
        yield Problem(pair.b.key, f"{found}, but in {base.label} it is the same tensor as embed_tokens", TIED)


RULE = Rule("HD001", "lm-head-lora-on-tied-base", Severity.ERROR, BaseCheck(check), gguf=True)
