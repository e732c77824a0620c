"""Head and embedding carry one delta between them (ensure_weight_tying): a LoRA file can't hold it on a tied base.

Why it matters: llama.cpp looks for the head's tensor, which a tied base doesn't have, and aborts at the first decode
with a LoRA on the embedding alone. PEFT's merge_and_unload adds the delta twice.

What to do: merge it, once, with `adapter-to-gguf ADAPTER --base BASE --to model -o model.gguf` (no --untie needed).
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING
from converter.diagnostics import BaseCheck, Problem, Rule, Severity
from converter.rules.ends import lora_on


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield a tied pair on a tied base."""
    if base.tied and adapter.is_tied_pair:
        for pair in lora_on(adapter, EMBEDDING):
            yield Problem(
                pair.b.key, "is half of a pair on the tensor that head and embedding share", frozenset({"lora"})
            )


RULE = Rule("HD005", "tied-pair-as-lora", Severity.ERROR, BaseCheck(check), gguf=True)
