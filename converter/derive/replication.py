"""layer_replication: the base as an adapter's training saw it, with layers repeated, left out or moved.

PEFT builds a new list of layers from ranges of the old one, and numbers them anew: ``replicate_layers`` in
peft/tuners/tuners_utils.py, PEFT 0.21.2.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel

if TYPE_CHECKING:
    from converter.read.gguf_header import GgufHeader

# A layer's number in the names of Hugging Face and of GGUF.
_LAYER: Final = r"(?<=\blayers\.)\d+(?=\.)|(?<=\bh\.)\d+(?=\.)|(?<=\bblk\.)\d+(?=\.)"


def as_trained(base: BaseModel, adapter: Adapter) -> BaseModel:
    """The base with the layers that the adapter's config names; the base itself where it names none, or unknown ones.

    Its tensors lie where the base's do: a layer that is repeated is written twice.
    """
    ranges = adapter.config.layer_replication if adapter.config else ()
    layers = tuple(layer for begin, end in ranges for layer in range(begin, end))
    if not layers or base.architecture is None or max(layers) >= base.dims["n_layer"]:
        return base
    return replace(
        base,
        dims={**base.dims, "n_layer": len(layers)},
        layer_dims=tuple(base.layer_dims[layer] for layer in layers) if base.layer_dims else (),
        layer_traits=tuple(base.layer_traits[layer] for layer in layers) if base.layer_traits else (),
        stems=frozenset(name for name, _ in _renumbered(dict.fromkeys(base.stems), layers)),
        tensors=dict(_renumbered(base.tensors, layers)),
        shards=tuple(_with_layers(shard, layers) for shard in base.shards),
        original=base,
    )


def _with_layers(shard: "GgufHeader", layers: tuple[int, ...]) -> "GgufHeader":
    by_name = {tensor.name: tensor for tensor in shard.tensors}
    return shard._replace(tensors=tuple(t._replace(name=name) for name, t in _renumbered(by_name, layers)))


T = TypeVar("T")


def _renumbered(by_name: Mapping[str, T], layers: tuple[int, ...]) -> Iterator[tuple[str, T]]:
    """Each item under every number that its layer has; items of no layer under their own name."""
    numbers: dict[str, list[int]] = {}
    for number, layer in enumerate(layers):
        numbers.setdefault(str(layer), []).append(number)
    for name, item in by_name.items():
        match = re.search(_LAYER, name)
        if match is None:
            yield name, item
        else:
            yield from ((f"{name[: match.start()]}{n}{name[match.end() :]}", item) for n in numbers.get(match[0], ()))
