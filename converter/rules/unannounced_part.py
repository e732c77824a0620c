"""The file holds DoRA magnitudes or LoRA biases, but the config says nothing of them.

Why it matters: PEFT builds the model from the config, so it drops these tensors when it loads; the model that was
trained had them. Which one was meant can't be known.

What to do: put the config beside the weights it was saved with. With use_dora or lora_bias set, see
unconverted-field.
"""

from collections.abc import Iterator
from typing import Final

from converter.diagnostics import AdapterCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter, Role

_FIELDS: Final[dict[Role, str]] = {"lora_magnitude_vector": "use_dora", "lora_B.bias": "lora_bias"}


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each such tensor whose field is not set."""
    if adapter.config is None:
        return
    for tensor in adapter.tensors:
        field = _FIELDS.get(tensor.role)
        if field and not adapter.config.raw.get(field):
            yield Problem(tensor.key, f"is in the file, but {field} is not set in adapter_config.json")


RULE = Rule("LO006", "unannounced-part", Severity.ERROR, AdapterCheck(check))
