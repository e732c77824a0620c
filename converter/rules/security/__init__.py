"""What could run code or read where it shouldn't."""

from typing import Final

from converter.diagnostics import Rule
from converter.rules.security import (
    foreign_shard,
    names_code,
    pickled_weights,
)

RULES: Final[tuple[Rule, ...]] = (
    pickled_weights.RULE,
    foreign_shard.RULE,
    names_code.RULE,
)
