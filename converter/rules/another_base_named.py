"""The adapter names a base of another size than the one given.

Why it matters: an adapter on another base with the same shapes loads without a word and is wrong: llama tied or
untied, gemma and gemma2, qwen2 and qwen3 share shapes. Names are the only trace, and they are free text: this is a
hint.

What to do: compare base_model_name_or_path in adapter_config.json with the base you give.
"""

import re
from collections.abc import Iterator
from typing import Final

from converter.diagnostics import BaseCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter
from converter.read.base_model import BaseModel

_SIZE: Final = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)([mb])(?![\w.])", re.IGNORECASE)
_MARGIN: Final = 1.5  # names round: one model is called 0.5B and 494M


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the two names if each states one size, and the sizes are clearly not the same."""
    named = adapter.config.base_model_name_or_path if adapter.config else None
    ours, theirs = _millions(named or ""), _millions(base.name or "")
    if ours and theirs and max(ours, theirs) > _MARGIN * min(ours, theirs):
        yield Problem("base_model_name_or_path", f"is {named!r}, but the base given calls itself {base.name!r}")


def _millions(name: str) -> float | None:
    """The one size in the last part of a name such as google/gemma-2b, in millions of parameters."""
    sizes = {
        float(number) * (1000 if unit in "bB" else 1)
        for number, unit in _SIZE.findall(re.split(r"[/\\]", name)[-1].replace("_", "-"))
    }
    return sizes.pop() if len(sizes) == 1 else None


RULE = Rule("BM006", "another-base-named", Severity.WARNING, BaseCheck(check))
