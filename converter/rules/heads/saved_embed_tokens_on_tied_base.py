"""embed_tokens was trained whole (modules_to_save), but the base's head and embedding are one tensor.

Why it matters: a LoRA file can't hold a whole embedding, and writing it into the shared tensor would replace the head
too, which training did not. Without ensure_weight_tying PEFT moves that end alone.

What to do: part the two with `adapter-to-gguf ADAPTER --base BASE --untie -o model.gguf`, or train again without
embed_tokens in modules_to_save.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING
from converter.diagnostics import EVERY, BaseCheck, Problem, Rule, Severity
from converter.rules.ends import saved_weight


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the saved embedding of a tied base that is not half of a saved pair."""
    for tensor in saved_weight(adapter, EMBEDDING) if base.tied and not adapter.is_saved_pair else ():
        message = f"replaces embed_tokens, but in {base.label} it is the same tensor as lm_head"
        yield Problem(tensor.key, message, EVERY - {"untie-model"})


RULE = Rule("HD004", "saved-embed-tokens-on-tied-base", Severity.ERROR, BaseCheck(check), gguf=True)
