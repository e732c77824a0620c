"""A layer before or between others has no tensors, though the config leaves none out, and no base is given to compare.

Why it matters: a part of what was learned may be lost: a shard or a layer left out when files were put together.
PEFT warns and serves the base's own layer; convert_lora_to_gguf.py says nothing. Only the base tells if the layer has
such modules at all, so this is a hint; with a base see module-missing.

What to do: name the base with --base. If the layer is lost, save the adapter again from the training run.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import NoBaseCheck, Problem, Rule, Severity
from converter.rules.promised import across_layers, layer_of, promise_of


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each gap. Where most layers have none (attention in every fourth layer), that is how the model is built."""
    layers = {layer for module in adapter.modules if (layer := layer_of(module)) is not None}
    gaps = set(range(max(layers))) - layers if layers else set()
    promise = promise_of(adapter) if len(gaps) < len(layers) else None
    if promise:
        kinds = sorted({across_layers(tensor.path) for tensor in adapter.tensors if tensor.role == "lora_A"})
        for gap in sorted(gaps):
            if any(promise.includes(kind.replace("{i}", str(gap), 1)) for kind in kinds):
                yield Problem(f"layer {gap}", f"has no tensors; layers {min(layers)} to {max(layers)} have them")


RULE = Rule("LO022", "layer-gap", Severity.WARNING, NoBaseCheck(check))
