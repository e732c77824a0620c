"""The traits of each layer of a Hugging Face model, by which tables say what only some layers have.

A trait is the layer's kind, as config.json or the config class calls it, or one of TRAITS.
"""

from collections.abc import Callable, Mapping
from typing import Final

from converter.architectures import Architecture

Config = Mapping[str, object]
Traits = frozenset[str]


def layer_traits(architecture: Architecture, config: Config, n_layer: int) -> tuple[Traits, ...]:
    """The traits of each layer; none where the table makes no difference between layers."""
    layers = architecture.layers
    if not (layers.kinds or layers.traits):
        return ()
    kinds = _kinds(architecture, config, n_layer)
    every = (frozenset({kind}) for kind in kinds)
    return tuple(traits | _others(architecture, config, traits, i, n_layer) for i, traits in enumerate(every))


def _kinds(architecture: Architecture, config: Config, n_layer: int) -> list[str]:
    stated = config.get("layer_types")
    if isinstance(stated, list) and len(stated) >= n_layer:
        return [str(kind) for kind in stated[:n_layer]]
    cycle = architecture.layers.kinds or ("",)
    return [cycle[i % len(cycle)] for i in range(n_layer)]


def _others(architecture: Architecture, config: Config, traits: Traits, i: int, n_layer: int) -> Traits:
    def number(field: str) -> int:
        value = architecture.setting(config, field)
        return value if type(value) is int else 0

    return frozenset(name for name in architecture.layers.traits if TRAITS[name](number, traits, n_layer - i))


# Whether a layer has a trait: by the config's numbers, the layer's kind, and how many layers are left with it.
Test = Callable[[Callable[[str], int], Traits, int], bool]
TRAITS: Final[Mapping[str, Test]] = {}
