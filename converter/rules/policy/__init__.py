"""What the user's policy limits."""

from typing import Final

from converter.diagnostics import Rule
from converter.rules.policy import (
    adapter_over_size,
    base_not_allowed,
    base_of_other_fingerprint,
    forbidden_module,
    head_cleared_by_named_base,
    rank_over_limit,
)

RULES: Final[tuple[Rule, ...]] = (
    rank_over_limit.RULE,
    adapter_over_size.RULE,
    base_not_allowed.RULE,
    base_of_other_fingerprint.RULE,
    forbidden_module.RULE,
    head_cleared_by_named_base.RULE,
)
