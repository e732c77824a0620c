"""The numbers of tensors."""

from typing import Final

from converter.diagnostics import Rule
from converter.rules.numbers import (
    base_not_finite,
    change_too_large,
    delta_lost,
    delta_of_the_base,
    no_effect,
    non_finite,
    rows_lost,
    value_too_large,
    zero_delta,
)

RULES: Final[tuple[Rule, ...]] = (
    non_finite.RULE,
    no_effect.RULE,
    zero_delta.RULE,
    change_too_large.RULE,
    rows_lost.RULE,
    delta_of_the_base.RULE,
    value_too_large.RULE,
    delta_lost.RULE,
    base_not_finite.RULE,
)
