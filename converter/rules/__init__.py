"""Every rule, in code order, and the codes that no rule has any more.

One rule, one module; its docstring is its documentation (``--explain CODE``).

Families: ST container, CF adapter_config, LO LoRA tensors, HD tied heads and embeddings, BM agreement with the base,
NM numbers, GG what GGUF and llama.cpp can express, SC security, PO what the user's policy limits, TG the servers it
goes to. A code is never used again for another rule: the next one is behind the last of its family, or of a group in
it, which begins at a ten.
"""

from typing import Final, NamedTuple

from converter.diagnostics import Rule
from converter.rules import base, config, container, gguf, heads, lora, numbers, policy, security, targets

RULES: Final[tuple[Rule, ...]] = tuple(
    rule
    for family in (container, config, lora, heads, base, numbers, gguf, security, policy, targets)
    for rule in family.RULES
)


class RetiredRule(NamedTuple):
    """A code that no rule has any more, what its rule was called, and why there is none."""

    code: str
    name: str
    why: str


RETIRED: Final = (
    RetiredRule("HD011", "unnamed-saved-end", "ends of a resized vocabulary are converted (BM020, BM021, BM022)"),
    RetiredRule("GG003", "base-is-not-gguf", "a GGUF is made of a Hugging Face directory too (BM040 to BM045)"),
)
