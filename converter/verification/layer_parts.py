"""PEFT's layers in parts: the same layer with some of its output features, for a head of 262,144 rows.

DoRA puts together the whole weight with its delta, three or four times over, to take its norm. That norm, like all else
that a linear layer does, belongs to one output feature: a row of a linear layer's weight, a column of an embedding's.
"""

import copy
from collections.abc import Iterator
from typing import Any, Final

import torch
from peft.tuners.lora.layer import Embedding, Linear
from torch import nn

from converter.verification.peft_layers import NAME, Rows, own_module
from converter.verification.stored_weights import keeping

# Values of a part's weight, 16 MB in float64.
_PART_VALUES: Final = 1 << 21


def is_divisible(layer: Any) -> bool:
    """Whether the layer is known to compute each output feature by itself."""
    own = own_module(layer)
    return (type(layer) is Linear and type(own) is nn.Linear) or (
        type(layer) is Embedding and isinstance(own, nn.Embedding)
    )


def parts(layer: Any) -> Iterator[slice]:
    """Ranges of output features that cover the layer, each small."""
    n_features, n_values = _n_features(layer), own_module(layer).weight.numel()
    step = max(1, _PART_VALUES * n_features // n_values)
    for begin in range(0, n_features, step):
        yield slice(begin, min(begin + step, n_features))


def part(layer: Any, features: Rows) -> Any:
    """A copy of a divisible layer with some of its output features."""
    shared = {id(parameter): parameter for parameter in layer.parameters()}
    own, weight_axis = own_module(layer), 1 if isinstance(layer, Embedding) else 0
    divided = {own.weight: weight_axis, **dict.fromkeys(_by_feature(layer), 0)}
    for parameter, axis in divided.items():
        values = parameter[features] if axis == 0 else parameter[:, features]
        shared[id(parameter)] = nn.Parameter(values, requires_grad=False)
    copied = copy.deepcopy(layer, shared)
    copied.__dict__.pop("forward", None)  # in_parts
    if isinstance(own_module(copied), nn.Linear):
        own_module(copied).out_features = len(own_module(copied).weight)
    return copied


def _n_features(layer: Any) -> int:
    weight = own_module(layer).weight
    return int(weight.shape[1] if isinstance(layer, Embedding) else weight.shape[0])


def _by_feature(layer: Any) -> Iterator[nn.Parameter]:
    """The parameters whose first axis is the layer's output features."""
    if isinstance(layer, Embedding):
        yield layer.lora_embedding_B[NAME]
    else:
        yield from (bias for bias in (own_module(layer).bias, layer.lora_B[NAME].bias) if bias is not None)
        yield layer.lora_B[NAME].weight
    if NAME in layer.lora_magnitude_vector:
        yield layer.lora_magnitude_vector[NAME].weight


def run_in_parts(layer: Any) -> None:
    """From now on, let the layer compute its output part by part."""

    def forward(*arguments: Any, **named: Any) -> torch.Tensor:
        with keeping(layer.parameters()):
            outputs = [part(layer, features).forward(*arguments, **named) for features in parts(layer)]
        return torch.cat(outputs, dim=-1)

    layer.forward = forward
