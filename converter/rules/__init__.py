"""Every rule, in code order. One rule, one module; its docstring is its documentation (``--explain CODE``).

Families: ST container, CF adapter_config, LO LoRA tensors, HD tied heads and embeddings, BM agreement with the base,
NM numbers, GG what GGUF and llama.cpp can express, SC security. A code is never used again for another rule.
"""

from typing import Final

from converter.diagnostics import Rule
from converter.rules import base, config, container, gguf, heads, lora, numbers, security

RULES: Final[tuple[Rule, ...]] = tuple(
    rule for family in (container, config, lora, heads, base, numbers, gguf, security) for rule in family.RULES
)
