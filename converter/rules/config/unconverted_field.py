"""A field of adapter_config.json changes the served weights in a way that this version doesn't convert.

Why it matters: left out, the result is another model without a word about it.

What to do: merge with PEFT (merge_and_unload) and convert the merged model, or train without the field.
"""

import json
from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.config_fields import unsupported_fields
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity

_CONSEQUENCES: Final = {
    "arrow_config": "a router mixes several adapters",
    "init_lora_weights": "training began on quantised weights, or in a way this version doesn't know",
    "kasa_config": "singular values scale the delta",
    "megatron_config": "modules are Megatron's parallel ones",
    "monteclora_config": "factors are mixtures of samples",
    "sample_at_inference": "weights are drawn anew for every input",
    "save_precomputed_indices": "which weights were trained isn't in the file",
    "use_bdlora": "factors are block-diagonal",
    "use_qalora": "inputs are pooled before lora_A",
}


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each field with such a value."""
    if adapter.config:
        # Invocation tokens have a rule of their own, which says more.
        for field in (field for field in unsupported_fields(adapter.config) if field != "alora_invocation_tokens"):
            value = json.dumps(adapter.config.raw[field])[:80]
            consequence = _CONSEQUENCES.get(field, "it changes the weights")
            yield Problem(field, f"is {value}: {consequence}, which is not converted")


RULE = Rule("CF006", "unconverted-field", Severity.ERROR, AdapterCheck(check), gguf=True)
