"""A GGUF's tensors, by the layer that they are of."""

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Final

from converter.derive.base_model import BaseModel
from converter.read.stored import StoredTensor

_OF_LAYER: Final = re.compile(r"blk\.(\d{1,6})\.(.+)")


class Gguf:
    """``tensors`` by their names; ``by_layer`` by the names behind that of the layer, None for what is of none."""

    def __init__(self, base: BaseModel) -> None:
        self.label = base.label
        self.tensors: Mapping[str, StoredTensor] = {
            tensor.name: StoredTensor(shard.path, tensor.offset, tensor.nbytes, tensor.shape, tensor.type.name)
            for shard in base.shards
            for tensor in shard.tensors
        }

    @cached_property
    def by_layer(self) -> Mapping[int | None, Mapping[str, StoredTensor]]:
        """The tensors of each layer by what they are called there."""
        found: dict[int | None, dict[str, StoredTensor]] = {}
        for name, tensor in self.tensors.items():
            match = _OF_LAYER.fullmatch(name)
            layer, own = (int(match[1]), match[2]) if match else (None, name)
            found.setdefault(layer, {})[own] = tensor
        return found

    def shapes(self, layer: int | None) -> frozenset[tuple[str, tuple[int, ...]]]:
        """What a layer consists of: layers that are made alike are kept alike."""
        return frozenset((name, tensor.shape) for name, tensor in self.by_layer.get(layer, {}).items())


def full_name(layer: int | None, own: str) -> str:
    """A tensor's name in the file."""
    return own if layer is None else f"blk.{layer}.{own}"
