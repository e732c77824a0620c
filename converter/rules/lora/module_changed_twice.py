"""A module is changed in two ways at once: by two pairs of factors, or by a LoRA and a saved weight.

Why it matters: PEFT gives a module one or the other, so the file is a mixture of two adapters, and it depends on the
loader which part counts.

What to do: save one adapter alone with PEFT's save_pretrained.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.adapter_keys import Role
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity

_WAYS: Final[tuple[Role, ...]] = ("lora_A", "lora_embedding_A", "weight", "trainable_tokens_delta")


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each module with more than one of: linear factors, embedding factors, a saved weight, token rows."""
    for module, roles in adapter.by_module.items():
        ways = [name for name in _WAYS if name in roles]
        if len(ways) > 1:
            yield Problem(module, f"has {' and '.join(ways)}, wanted one of them")


RULE = Rule("LO009", "module-changed-twice", Severity.ERROR, AdapterCheck(check))
