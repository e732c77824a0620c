"""What could run code or read where it shouldn't."""

from typing import Final

from converter.diagnostics import Rule
from converter.rules.security import (
    foreign_shard,
    link_outside,
    names_code,
    pickle_beside,
    pickle_runs_code,
    pickled_weights,
    template_reaches_into_python,
)

RULES: Final[tuple[Rule, ...]] = (
    pickled_weights.RULE,
    foreign_shard.RULE,
    names_code.RULE,
    pickle_beside.RULE,
    pickle_runs_code.RULE,
    link_outside.RULE,
    template_reaches_into_python.RULE,
)
