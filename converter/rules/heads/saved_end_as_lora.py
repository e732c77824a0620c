"""Head or embedding was trained whole (modules_to_save): a LoRA file can't hold it.

Why it matters: a LoRA GGUF has room for low-rank factors only; convert_lora_to_gguf.py ends in `Unexpected name` on a
saved embedding or head.

What to do: merge it with `adapter-to-gguf ADAPTER --base BASE --to model -o model.gguf`. Ends that hold the base's own
numbers say nothing, and stand in no way: that is compared where the numbers are read (--values; adapter-to-gguf always
does), and can't be told of a base that is quantised.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import LORA, BaseCheck, Problem, Rule, Severity
from converter.rules.ends import ENDS, saved_weight

_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each saved end of an untied base, or a saved pair; on a tied one, rules of their own say more."""
    for module in () if base.tied and not adapter.is_saved_pair else ENDS:
        for tensor in saved_weight(adapter, module):
            yield Problem(tensor.key, f"replaces {module} as a whole{_unless(base, module)}", LORA)


def _unless(base: BaseModel, module: str) -> str:
    stored = base.weight(module)
    if stored is None or stored.dtype in _FLOATS:
        return ""
    return f", with {base.label}'s own numbers or others: its {stored.dtype} can't tell; a base in F16 or more can"


RULE = Rule("HD010", "saved-end-as-lora", Severity.ERROR, BaseCheck(check), gguf=True)
