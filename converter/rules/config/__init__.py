"""adapter_config.json, and what PEFT makes of it."""

from typing import Final

from converter.diagnostics import Rule
from converter.rules.config import (
    another_initial_adapter,
    begun_by_loftq,
    config_missing,
    duplicate_field,
    field_of_wrong_type,
    initialization_lost,
    initialization_without_base,
    layer_without_mlx_delta,
    merge_differs,
    module_not_targeted,
    not_loaded_by_peft,
    saved_module_missing,
    unconverted_field,
    unknown_field,
    unreadable_config,
    unsafe_pattern,
    unsupported_peft_type,
)

RULES: Final[tuple[Rule, ...]] = (
    config_missing.RULE,
    unreadable_config.RULE,
    field_of_wrong_type.RULE,
    unknown_field.RULE,
    unsupported_peft_type.RULE,
    unconverted_field.RULE,
    unsafe_pattern.RULE,
    duplicate_field.RULE,
    saved_module_missing.RULE,
    merge_differs.RULE,
    not_loaded_by_peft.RULE,
    initialization_lost.RULE,
    initialization_without_base.RULE,
    another_initial_adapter.RULE,
    module_not_targeted.RULE,
    begun_by_loftq.RULE,
    layer_without_mlx_delta.RULE,
)
