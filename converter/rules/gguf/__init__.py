"""What GGUF and llama.cpp can express."""

from typing import Final

from converter.diagnostics import Rule
from converter.rules.gguf import (
    bias_not_read,
    embedding_behind_a_norm,
    experts_of_different_ranks,
    head_not_read,
    lora_not_read,
    lora_on_vector,
    matrix_in_parts,
    replication_beyond_base,
    replication_breaks_windows,
)

RULES: Final[tuple[Rule, ...]] = (
    head_not_read.RULE,
    lora_on_vector.RULE,
    bias_not_read.RULE,
    lora_not_read.RULE,
    experts_of_different_ranks.RULE,
    replication_breaks_windows.RULE,
    replication_beyond_base.RULE,
    embedding_behind_a_norm.RULE,
    matrix_in_parts.RULE,
)
