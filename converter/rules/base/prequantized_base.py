"""The base's weights are packed by bitsandbytes, GPTQ, AWQ, FP8 or another quantiser of PyTorch's.

Why it matters: its tensors are not the numbers that a delta can be added to, and their shapes say nothing about the
modules'.

What to do: give the original model of the same name with --base, or a GGUF of it (any quantisation of GGUF's own is
fine).
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseCheck, Problem, Rule, Severity


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the quantiser that the base's config names."""
    if base.quantization:
        yield Problem(base.label, f"is quantised by {base.quantization}, wanted the original weights or a GGUF")


RULE = Rule("BM004", "prequantized-base", Severity.ERROR, BaseCheck(check))
