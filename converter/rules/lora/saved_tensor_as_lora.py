"""A whole parameter other than head and embedding was trained and saved: a bias, a norm, a layer of modules_to_save.

Why it matters: a LoRA GGUF has room for low-rank factors only. convert_lora_to_gguf.py refuses biases, and writes
saved norms into a file whose loader then ignores them in silence.

What to do: merge it with `adapter-to-gguf ADAPTER --base BASE --to model -o model.gguf`.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import LORA, AdapterCheck, Problem, Rule, Severity
from converter.rules.ends import ENDS


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each saved parameter that is not the weight of head or embedding, trained biases among them."""
    for tensor in adapter.changed_modules:
        if tensor.role == "bias" or tensor.module not in ENDS:
            yield Problem(tensor.key, f"replaces the {tensor.role} of {tensor.module} as a whole", LORA)
    for tensor in adapter.base_layers:
        if tensor.role == "base_layer.bias":
            yield Problem(tensor.key, f"replaces the bias of {tensor.module} as a whole", LORA)


RULE = Rule("LO007", "saved-tensor-as-lora", Severity.ERROR, AdapterCheck(check), gguf=True)
