"""What the servers that an adapter goes to make of it, by their tables (converter/targets)."""

from typing import Final

from converter.diagnostics import Rule
from converter.rules.targets import (
    base_unknown_to_target,
    target_not_known_to_serve,
    target_refuses,
    target_serves_something_else,
    unknown_version,
)

RULES: Final[tuple[Rule, ...]] = (
    target_refuses.RULE,
    target_serves_something_else.RULE,
    target_not_known_to_serve.RULE,
    base_unknown_to_target.RULE,
    unknown_version.RULE,
)
