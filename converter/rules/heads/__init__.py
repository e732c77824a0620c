"""The two ends of a model, head and embedding, and whether they are tied."""

from typing import Final

from converter.diagnostics import Rule
from converter.rules.heads import (
    embed_tokens_lora_on_tied_base,
    end_without_base,
    foreign_base_layer,
    lm_head_lora_on_tied_base,
    misplaced_base_layer,
    saved_embed_tokens_on_tied_base,
    saved_end_as_lora,
    saved_lm_head_on_tied_base,
    saved_pair_differs,
    tied_pair_as_lora,
    tied_pair_differs,
    tied_rows_on_untied_base,
    token_rows_as_lora,
    token_rows_part_the_ends,
)

RULES: Final[tuple[Rule, ...]] = (
    lm_head_lora_on_tied_base.RULE,
    saved_lm_head_on_tied_base.RULE,
    embed_tokens_lora_on_tied_base.RULE,
    saved_embed_tokens_on_tied_base.RULE,
    tied_pair_as_lora.RULE,
    tied_pair_differs.RULE,
    end_without_base.RULE,
    foreign_base_layer.RULE,
    misplaced_base_layer.RULE,
    saved_end_as_lora.RULE,
    token_rows_as_lora.RULE,
    token_rows_part_the_ends.RULE,
    saved_pair_differs.RULE,
    tied_rows_on_untied_base.RULE,
)
