"""The file holds a delta of a module that adapter_config.json leaves out, so PEFT doesn't load it.

Why it matters: PEFT builds the model from target_modules, exclude_modules, modules_to_save, layers_to_transform and
target_parameters, and passes over what is in the file beside that. What was evaluated with PEFT is another model than
the one that all tensors make: a KL to the base of 0.009 instead of 0.526 on a tiny llama. Which one was meant can't be
known.

What to do: if all of the file was trained, name its modules in target_modules (and take them out of exclude_modules).
If the config is right, save the adapter again with PEFT's save_pretrained, which saves what it loads.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.adapter_tensors import AdapterTensor
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity
from converter.rules.promised import across_layers, layer_of, promise_of_any


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each kind of module that is left out, with its layers."""
    promise = promise_of_any(adapter)
    if promise is None:
        return
    left_out: dict[str, list[int]] = {}
    for path in dict.fromkeys(tensor.path for tensor in adapter.tensors if _is_of_delta(tensor)):
        if not promise.loads(path):
            layer = layer_of(path)
            left_out.setdefault(across_layers(path), []).extend(() if layer is None else (layer,))
    for kind, layers in left_out.items():
        where = f" (layer{'s' if len(layers) > 1 else ''} {', '.join(map(str, layers))})" if layers else ""
        yield Problem(kind, f"has a delta in the file{where}, which the config leaves out: PEFT doesn't load it")


def _is_of_delta(tensor: AdapterTensor) -> bool:
    """A renamed tensor is none that PEFT loads: that it counts is the user's word, whatever the config selects."""
    return tensor.read_as is None and (tensor.role == "tuner" or tensor.role.startswith("lora_"))


RULE = Rule("CF015", "module-not-targeted", Severity.ERROR, AdapterCheck(check))
