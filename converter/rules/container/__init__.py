"""The files of an adapter: safetensors, index, tokenizer."""

from typing import Final

from converter.diagnostics import Rule
from converter.rules.container import (
    broken_index,
    broken_offsets,
    duplicate_key,
    empty_tensor,
    lfs_pointer,
    malformed_entry,
    no_tensors,
    size_mismatch,
    truncated_file,
    unreadable_header,
    unreadable_tokenizer,
    weights_beside,
    weights_missing,
)

RULES: Final[tuple[Rule, ...]] = (
    weights_missing.RULE,
    unreadable_header.RULE,
    duplicate_key.RULE,
    broken_offsets.RULE,
    size_mismatch.RULE,
    malformed_entry.RULE,
    lfs_pointer.RULE,
    broken_index.RULE,
    no_tensors.RULE,
    empty_tensor.RULE,
    truncated_file.RULE,
    weights_beside.RULE,
    unreadable_tokenizer.RULE,
)
