"""The file holds DoRA magnitudes, LoRA biases or token rows, but the config says nothing of them.

Why it matters: PEFT builds the model from the config, so it drops these tensors when it loads; the model that was
trained had them. Which one was meant can't be known.

What to do: put the config beside the weights it was saved with.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.adapter_keys import Role
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity

_FIELDS: Final[dict[Role, str]] = {
    "lora_magnitude_vector": "use_dora",
    "lora_B.bias": "lora_bias",
    "trainable_tokens_delta": "trainable_token_indices",
}


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each such tensor whose field is not set."""
    if adapter.config is None:
        return
    with_rows = {rows.module for rows in adapter.token_rows}
    is_lora = adapter.config.is_lora
    for tensor in adapter.tensors:
        field = _FIELDS.get(tensor.role)
        if field and is_lora and not adapter.config.raw.get(field):
            yield Problem(tensor.key, f"is in the file, but {field} is not set in adapter_config.json")
        elif tensor.role == "trainable_tokens_delta" and tensor.module not in with_rows:
            yield Problem(tensor.key, f"is in the file, but {field} names no tokens of {tensor.module}")


RULE = Rule("LO006", "unannounced-part", Severity.ERROR, AdapterCheck(check))
