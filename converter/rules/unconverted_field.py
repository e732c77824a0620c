"""A field of adapter_config.json changes the served weights in a way that this version doesn't convert.

Why it matters: left out, the result is another model without a word about it. Measured on tiny models, where
convert_lora_to_gguf.py gives no message: PiSSA applied to the original base, an effect ratio of 1.67 (worse than no
adapter); layer_replication with an unchanged layer count, silently wrong; a square Conv1D matrix, silently
transposed.

What to do: merge with PEFT (merge_and_unload) and convert the merged model, or train without the field. For PiSSA,
OLoRA and CorDA save with PEFT's path_initial_model_for_weight_conversion: the result is a plain LoRA, and exact.
"""

import json
from collections.abc import Iterator
from typing import Final

from converter.diagnostics import AdapterCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter

_CONSEQUENCES: Final = {
    "arrow_config": "a router mixes several adapters",
    "init_lora_weights": "training began by changing the base's own weights",
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
        for field in adapter.config.unsupported:
            value = json.dumps(adapter.config.raw[field])[:80]
            consequence = _CONSEQUENCES.get(field, "it changes the weights")
            yield Problem(field, f"is {value}: {consequence}, which is not converted")


RULE = Rule("CF006", "unconverted-field", Severity.ERROR, AdapterCheck(check))
