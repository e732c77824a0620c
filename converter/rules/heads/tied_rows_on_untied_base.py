"""The head's token rows repeat the embedding's, as PEFT saves them of a tied model, and the base's head is its own.

Why it matters: the adapter was trained on a tied base; PEFT gives the head of this one no rows, and only warns of the
key. Half of what was trained would be left out.

What to do: give the tied base that the adapter was trained on.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import HEAD
from converter.diagnostics import BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the head's rows that are a copy, where the base is untied."""
    for tensor in () if base.tied else adapter.tensors:
        if tensor.role == "copy" and tensor.module == HEAD and tensor.key.endswith("trainable_tokens_delta"):
            message = f"repeats {tensor.copy_of}, but in {base.label} the head is no copy of the embedding"
            yield Problem(tensor.key, message)


RULE = Rule("HD015", "tied-rows-on-untied-base", Severity.ERROR, BaseCheck(check))
