"""llama.cpp's graph of this architecture has no bias for a module that the adapter gives one.

Why it matters: llama.cpp refuses a file with a tensor that its loader doesn't create (`wrong number of tensors`). The
bias would have to be dropped, and is a part of what was trained.

What to do: train with bias="none" and lora_bias=False, or without these modules.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import MODEL, BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each bias that the graph doesn't add."""
    for tensor in adapter.tensors:
        # PEFT's bias tuner (BEFT) has one tensor a module, the bias.
        is_bias = tensor.role.endswith("bias") or (tensor.role == "tuner" and tensor.key.endswith("bias"))
        place = base.place(tensor.module) if is_bias else None
        if place and not place.bias:
            message = f"is a bias, and llama.cpp's {base.model_type} reads no {place.tensor}.bias"
            yield Problem(tensor.key, message, MODEL)


RULE = Rule("GG004", "bias-not-read", Severity.ERROR, BaseCheck(check), gguf=True)
