"""A LoRA factor stands without its partner.

Why it matters: a delta is the product of both. convert_lora_to_gguf.py ends in a bare AssertionError on a missing
lora_B; tools that skip the module serve a part of the adapter.

What to do: save the adapter again from the training run; the file is incomplete.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.adapter_keys import Role
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity

_PARTNERS: Final[dict[Role, Role]] = {
    "lora_A": "lora_B",
    "lora_B": "lora_A",
    "lora_embedding_A": "lora_embedding_B",
    "lora_embedding_B": "lora_embedding_A",
}


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each factor whose partner is missing."""
    for roles in adapter.by_module.values():
        for role, tensor in roles.items():
            partner = _PARTNERS.get(role)
            if partner and partner not in roles:
                yield Problem(tensor.key, f"has no {partner} beside it")


RULE = Rule("LO001", "unpaired-factor", Severity.ERROR, AdapterCheck(check))
