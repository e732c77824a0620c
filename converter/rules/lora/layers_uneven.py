"""Layers of the same make have a delta of a module here and none there, and no base is given to compare with.

Why it matters: a part of what was learned may be lost: k_proj and v_proj of half of the layers, one module of one
layer, or all of a module that target_modules names. PEFT warns and serves the base's own; convert_lora_to_gguf.py says
nothing. Only the base tells if the layer has such a module at all (some models share keys and values between layers,
or name modules for several families), so this is a hint; with a base see module-missing.

What to do: name the base with --base. If something is lost, save the adapter again from the training run.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from converter.derive.adapter import Adapter
from converter.diagnostics import CannotLookError, NoBaseCheck, Problem, Rule, Severity
from converter.rules.promised import Promise, across_layers, layer_of, promise_of

_MOST_COMPARED: Final = 1_000_000  # kinds of modules, in layers, of so many makes; a hundred times a large model's


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each kind of module that some layers lack, and each name of target_modules that no tensor has.

    A layer lacks a kind where it has less than another one; with something of its own instead it is built otherwise.
    """
    promise = promise_of(adapter)
    if promise is None:
        return
    layers = _kinds_by_layer(adapter)
    makes, kinds = set(layers.values()), sorted(frozenset().union(*layers.values()))
    if len(makes) * len(kinds) * len(layers) > _MOST_COMPARED:
        raise CannotLookError("no two of its layers are alike")
    for kind in kinds:
        fuller = [make for make in makes if kind in make]
        lacking = [
            layer for layer, make in layers.items() if any(make < other for other in fuller) and kind not in make
        ]
        lacking = [layer for layer in lacking if promise.includes(kind.replace("{i}", str(layer), 1))]
        if 0 < len(lacking) <= sum(kind in make for make in layers.values()):
            where = f"layer{'s' if len(lacking) > 1 else ''} {', '.join(map(str, sorted(lacking)))}"
            yield Problem(kind, f"has no tensor in {where}, though the config names it and other layers have it")
    for name in _unused_names(promise):
        yield Problem("target_modules", f"names {name}, of which there is no tensor")


def _kinds_by_layer(adapter: Adapter) -> Mapping[int, frozenset[str]]:
    kinds: dict[int, set[str]] = {}
    for tensor in adapter.tensors:
        if tensor.role == "lora_A" and (layer := layer_of(tensor.path)) is not None:
            kinds.setdefault(layer, set()).add(across_layers(tensor.path))
    return {layer: frozenset(of_layer) for layer, of_layer in kinds.items()}


def _unused_names(promise: Promise) -> Iterator[str]:
    targets = promise.config.target_modules
    unused = dict.fromkeys(targets if isinstance(targets, tuple) else ())
    for tensor in (*promise.adapter.tensors, *promise.adapter.left_out):
        if not unused:  # after the first layer, as a rule
            return
        path = tensor.path
        for begin in (0, *(i + 1 for i, c in enumerate(path) if c == ".")):
            unused.pop(path[begin:], None)
    yield from unused


RULE = Rule("LO023", "layers-uneven", Severity.WARNING, NoBaseCheck(check))
