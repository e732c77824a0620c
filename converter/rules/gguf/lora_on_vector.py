"""A LoRA on a norm or another vector.

Why it matters: llama.cpp skips `*_norm.weight` in a LoRA file in silence, and its graphs apply deltas to matrices
only.

What to do: train the norm whole (modules_to_save) and convert with --to model, or leave it out of target_modules.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each pair on a module whose weight is no matrix."""
    for pair in adapter.pairs:
        place = base.place(pair.module)
        if place and len(place.shape) == 1:
            yield Problem(pair.module, f"is a vector ({place.tensor}.weight), which takes no LoRA")


RULE = Rule("GG002", "lora-on-vector", Severity.ERROR, BaseCheck(check), gguf=True)
