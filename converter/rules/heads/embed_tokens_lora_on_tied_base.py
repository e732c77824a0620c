"""embed_tokens carries a LoRA of its own, but the base's head and embedding are one tensor.

Why it matters: llama.cpp loads the LoRA file, then aborts the whole process at the first decode
(GGML_ASSERT(ggml_can_mul_mat)). Merging moves the head along with the embedding, which training did not.

What to do: part the two with `adapter-to-gguf ADAPTER --base BASE --untie -o model.gguf`, or train again without
embed_tokens (target_modules="all-linear" leaves it out), or with ensure_weight_tying=True.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING
from converter.diagnostics import TIED, BaseCheck, Problem, Rule, Severity
from converter.rules.ends import lora_on


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield a LoRA on the embedding of a tied base that is not half of a tied pair."""
    if not base.tied or adapter.is_tied_pair:
        return
    for pair in lora_on(adapter, EMBEDDING):
        message = f"embed_tokens has a LoRA of its own, but in {base.label} it is the same tensor as lm_head"
        yield Problem(pair.b.key, message, TIED)


RULE = Rule("HD003", "embed-tokens-lora-on-tied-base", Severity.ERROR, BaseCheck(check), gguf=True)
