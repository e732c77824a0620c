"""The tensors of an adapter among themselves."""

from typing import Final

from converter.diagnostics import Rule
from converter.rules.lora import (
    announced_part_missing,
    copy_differs,
    dora_as_lora,
    experts_turned_round,
    factors_of_another_kind,
    invocation_tokens,
    layer_gap,
    layers_uneven,
    lora_bias_as_lora,
    misshaped_factor,
    misshaped_part,
    module_changed_twice,
    module_missing,
    not_floating_point,
    rank_disagrees,
    replication_as_lora,
    saved_tensor_as_lora,
    tensor_given_twice,
    unannounced_part,
    unknown_key,
    unpaired_factor,
    vision_tower_changed,
)

RULES: Final[tuple[Rule, ...]] = (
    unpaired_factor.RULE,
    misshaped_factor.RULE,
    tensor_given_twice.RULE,
    unknown_key.RULE,
    rank_disagrees.RULE,
    unannounced_part.RULE,
    saved_tensor_as_lora.RULE,
    not_floating_point.RULE,
    module_changed_twice.RULE,
    factors_of_another_kind.RULE,
    dora_as_lora.RULE,
    lora_bias_as_lora.RULE,
    replication_as_lora.RULE,
    invocation_tokens.RULE,
    announced_part_missing.RULE,
    misshaped_part.RULE,
    copy_differs.RULE,
    vision_tower_changed.RULE,
    module_missing.RULE,
    layer_gap.RULE,
    layers_uneven.RULE,
    experts_turned_round.RULE,
)
