"""The base's config asks for a rotary embedding that llama.cpp's graph of its architecture doesn't compute.

Why it matters: positions would be rotated otherwise than in training: the model loads, and is wrong from some position
on, or everywhere.

What to do: give a GGUF of the base that is known to work, or serve the model with another program.
"""

from collections.abc import Iterator

from converter.diagnostics import WHOLE_BASE, BaseCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter
from converter.read.base_model import BaseModel
from converter.read.rope import rope_fault


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield why the rotary embedding can't be had."""
    fault = rope_fault(base) if base.is_convertible_checkpoint else None
    if fault:
        yield Problem("config.json", fault, WHOLE_BASE)


RULE = Rule("BM044", "rope-not-read", Severity.ERROR, BaseCheck(check))
