"""Two keys stand for one tensor of one module.

Why it matters: once PEFT's prefixes and the adapter's name are taken away, both mean the same factor, and it depends
on the loader which one counts. Merged state dicts of two adapters look like this.

What to do: save one adapter alone with PEFT's save_pretrained.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each key that repeats an earlier one in other words; the same words are duplicate-key."""
    first: dict[tuple[str, str], str] = {}
    for tensor in adapter.tensors:
        if tensor.role in ("unknown", "tuner", "shared", "copy", "original"):
            continue
        earlier = first.setdefault((tensor.module, tensor.role), tensor.key)
        if earlier != tensor.key:
            yield Problem(tensor.key, f"is {tensor.role} of {tensor.module}, and so is {earlier}")


RULE = Rule("LO003", "tensor-given-twice", Severity.ERROR, AdapterCheck(check))
