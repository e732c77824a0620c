"""adapter_config.json has a field that this version doesn't know, and it holds a value.

Why it matters: it may change the weights that are served. use_rslora and alpha_pattern were once such fields, and
convert_lora_to_gguf.py still passes over both in silence: a KL of 0.15 to 6.5 on tiny models.

What to do: update adapter-to-gguf. If you know that the field is without effect on the weights, delete it from
adapter_config.json.
"""

import json
from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.config_fields import unknown_fields
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each unknown field that holds a value."""
    if adapter.config:
        for field in unknown_fields(adapter.config):
            method = adapter.config.peft_type or "LORA"
            value = json.dumps(adapter.config.raw[field])[:80]
            yield Problem(field, f"is {value}, and is no field of PEFT's config of {method} that this version knows")


RULE = Rule("CF004", "unknown-field", Severity.ERROR, AdapterCheck(check))
