"""The base's weights are packed by bitsandbytes, GPTQ, AWQ, FP8 or another quantiser of PyTorch's.

Why it matters: its tensors are not the numbers that a delta can be added to. A LoRA file of plain factors needs none
of them, only the shapes that config.json tells: it is served on a GGUF of the original model.

What to do: for anything but `--to lora` give the original model with --base, or a GGUF of it (any quantisation of
GGUF's own is fine). For adapters trained on such a base (QLoRA), that is the model it was made from.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.model_names import original_name
from converter.diagnostics import WHOLE_BASE, BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the quantiser that the base's config names, and the original model as far as names tell it."""
    if base.quantization:
        named = adapter.config.base_model_name_or_path if adapter.config else None
        originals = (original_name(name) for name in (base.label, base.name, named) if name)
        original = next(filter(None, originals), None)
        which = f" ({original}, by its name)" if original else ""
        message = f"is quantised by {base.quantization}, wanted the original weights{which} or a GGUF"
        yield Problem(base.label, message, WHOLE_BASE)


RULE = Rule("BM004", "prequantized-base", Severity.ERROR, BaseCheck(check), gguf=True)
