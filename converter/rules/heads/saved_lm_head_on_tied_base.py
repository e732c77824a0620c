"""lm_head was trained whole (modules_to_save), but the base's head and embedding are one tensor.

Why it matters: a LoRA file can't hold a whole head, and writing it into the shared tensor would replace the embedding
too. convert_lora_to_gguf.py drops it for Gemma 1 and 2 and reports success. Within PEFT it is exact: PEFT 0.21 unties
the model by itself.

What to do: give the model its own head with `adapter-to-gguf ADAPTER --base BASE --untie -o model.gguf`, or train
again without lm_head in modules_to_save.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import HEAD
from converter.diagnostics import EVERY, BaseCheck, Problem, Rule, Severity
from converter.rules.ends import saved_weight


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the saved head of a tied base that is not half of a saved pair."""
    for tensor in saved_weight(adapter, HEAD) if base.tied and not adapter.is_saved_pair else ():
        message = f"replaces lm_head, but in {base.label} it is the same tensor as embed_tokens"
        yield Problem(tensor.key, message, EVERY - {"untie-model"})


RULE = Rule("HD002", "saved-lm-head-on-tied-base", Severity.ERROR, BaseCheck(check), gguf=True)
