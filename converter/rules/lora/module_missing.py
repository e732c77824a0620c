"""The config says that a module was trained, the base has it, and the file holds nothing of it.

Why it matters: a part of what was learned is not there, such as a shard or a layer left out when files were put
together; or the base has more layers than the one that was trained. PEFT warns and serves the base's own module;
convert_lora_to_gguf.py says nothing.

What to do: save the adapter again from the training run, or give the base that it was trained on. A module that was
left out on purpose belongs in exclude_modules, its layer out of layers_to_transform.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING
from converter.diagnostics import BaseCheck, Problem, Rule, Severity
from converter.rules.promised import Promise, across_layers, layer_of, promise_of


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each kind of module that is missing, with the layers it is missing in."""
    promise = promise_of(adapter)
    if promise is None or base.architecture is None:
        return
    missing: dict[str, list[int | None]] = {}
    for module in _missing(promise, base):
        missing.setdefault(across_layers(module), []).append(layer_of(module))
    for kind, layers in missing.items():
        where = ", ".join(str(layer) for layer in layers if layer is not None)
        in_layers = f" in layer{'s' if len(layers) > 1 else ''} {where} of {base.dims['n_layer']}" if where else ""
        yield Problem(kind, f"has no tensor{in_layers}, though the config names it as trained")


def _missing(promise: Promise, base: BaseModel) -> Iterator[str]:
    there = set(promise.adapter.modules)
    wrapper = _wrapper(promise.adapter)
    for module in base.matrices(with_experts=any(".experts.0." in module for module in there)):
        if module not in there and promise.includes(_saved_path(module, wrapper)):
            yield module


def _wrapper(adapter: Adapter) -> tuple[str, str]:
    """How the text model's paths begin, here and in the model as it was trained (multimodal ones wrap it)."""
    for tensor in adapter.tensors:
        layer = layer_of(tensor.module)
        tail = f".{layer}.{tensor.module.partition(f'.{layer}.')[2]}"
        if layer is not None and tensor.path.endswith(tail):
            return tensor.module.removesuffix(tail), tensor.path.removesuffix(tail)
    return "", ""


# Of GPT-2 and GPT-NeoX.
_EMBEDDINGS: Final = {"transformer": "transformer.wte", "gpt_neox": "gpt_neox.embed_in"}


def _saved_path(module: str, wrapper: tuple[str, str]) -> str:
    """The path that the config's patterns were written for."""
    ours, theirs = wrapper
    own_name = _EMBEDDINGS.get(ours.partition(".")[0])
    if module == EMBEDDING and own_name:
        return own_name
    return f"{theirs}{module.removeprefix(ours)}" if ours and module.startswith(ours) else module


RULE = Rule("LO021", "module-missing", Severity.ERROR, BaseCheck(check))
