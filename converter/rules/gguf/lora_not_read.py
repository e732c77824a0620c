"""llama.cpp's graph of this architecture doesn't apply a LoRA to a module that the adapter changes.

Why it matters: the LoRA file loads, and the delta is ignored in silence (GPT-2's position embedding), or added without
a factor that belongs to it (Gemma 4's experts).

What to do: merge it with `adapter-to-gguf ADAPTER --base BASE --to model -o model.gguf`.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import LORA, BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each pair on such a module; vectors belong to lora-on-vector."""
    for pair in adapter.pairs:
        place = base.place(pair.module)
        if place and not place.lora and len(place.shape) > 1:
            yield Problem(pair.module, f"takes no LoRA in llama.cpp's {base.model_type} ({place.tensor}.weight)", LORA)


RULE = Rule("GG005", "lora-not-read", Severity.ERROR, BaseCheck(check), gguf=True)
