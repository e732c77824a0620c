"""An adapter that PEFT itself has to merge changes a matrix that GGUF has in parts, and the base is a GGUF.

Why it matters: what LoHa, LoKr and others do to a matrix can't be told of its parts. PEFT needs it whole, as in the
Hugging Face checkpoint: gate and up projections in one (Granite 4), keys and values of all heads (DeepSeek).

What to do: give the Hugging Face directory of the same base as --base, or train a LoRA, whose factors are taken apart.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import MODEL, BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each such module."""
    if base.format != "gguf":
        return
    for module in dict.fromkeys(tensor.module for tensor in adapter.tensors if tensor.role == "tuner"):
        places = base.places(module)
        if places and not places[0].is_whole_tensor and base.weight(module) is None:
            parts = ", ".join(dict.fromkeys(place.tensor for place in places))
            yield Problem(module, f"lies in parts in {base.label} ({parts}), and PEFT merges whole matrices", MODEL)


RULE = Rule("GG010", "matrix-in-parts", Severity.ERROR, BaseCheck(check), gguf=True)
