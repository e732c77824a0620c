"""PEFT's layers: what they are put on, what they are made of, and the deltas of plain LoRAs in float64, row by row.

PEFT 0.21.2: peft/tuners/lora/layer.py (get_delta_weight, ParamWrapper), peft/utils/other.py (wrappers).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from peft.tuners.lora.layer import Embedding, Linear, LoraLayer, ParamWrapper
from peft.tuners.lora.variants import ALoraLinearVariant
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import nn
from transformers.models.llama4.modeling_llama4 import Llama4TextExperts
from transformers.pytorch_utils import Conv1D

from converter.verification.stored_weights import plain

NAME: Final = "default"
Rows = slice | np.ndarray
Factors = tuple[torch.Tensor, torch.Tensor]


def own_module(module: Any) -> Any:
    """The base's own module under PEFT's wrappers of it."""
    match module:
        case TrainableTokensWrapper():
            return own_module(module.token_adapter.get_base_layer())
        case ModulesToSaveWrapper():
            return own_module(module.original_module)
        case BaseTunerLayer():
            return own_module(module.get_base_layer())
        case _:
            return module


def saved_module(module: Any) -> Any:
    """What takes the place of the base's own module: the one that was saved, or the base's own."""
    return module.modules_to_save[NAME] if isinstance(module, ModulesToSaveWrapper) else own_module(module)


def module_at(model: Any, path: str) -> Any:
    """The module at a path of the base's: it may lie in one whose parameters PEFT wraps (ERNIE's router)."""
    found = model
    for name in path.split("."):
        while isinstance(found, ParamWrapper) and name not in dict(found.named_children()):
            found = found.base_layer
        found = found.get_submodule(name)
    return found


def wrapper_of(module: Any, parameter: str) -> ParamWrapper | None:
    """The wrapper of one parameter; they are nested, one for each of the module's target_parameters."""
    while isinstance(module, ParamWrapper):
        if module.parameter_name == parameter:
            return module
        module = module.base_layer
    return None


def is_product(layer: Any) -> bool:
    """Whether the layer adds scaling * B @ A to its weight, and changes it in no other way."""
    is_lora = type(layer) in {Linear, Embedding, ParamWrapper}
    return is_lora and isinstance(variant_of(layer), ALoraLinearVariant | None)


def variant_of(layer: Any) -> Any:
    """What makes more than a LoRA of the layer, such as DoRA; None where nothing does."""
    return layer.lora_variant.get(NAME) if isinstance(layer, LoraLayer) else None


def is_turned(module: Any, values: torch.Tensor) -> bool:
    """Whether a module keeps a matrix, or those of its experts, with the output last: Conv1D, gpt-oss, Llama 4."""
    if isinstance(module, Conv1D):
        return values.dim() == 2
    return values.dim() == 3 and (getattr(module, "is_transposed", False) or isinstance(module, Llama4TextExperts))


def as_matrix(module: Any, values: torch.Tensor) -> torch.Tensor:
    """A parameter with output rows first; experts one below the other. A view, but of experts that are turned."""
    if is_turned(module, values):
        values = values.mT
    return values.reshape(-1, values.shape[-1]) if values.dim() == 3 else values


def rows_of(module: Any, values: torch.Tensor, rows: Rows) -> torch.Tensor:
    """Rows of `as_matrix`, whose copy of turned experts is one of all of them."""
    if values.dim() == 3 and is_turned(module, values):
        n_experts, _, n_out = values.shape
        numbers = np.arange(n_experts * n_out)[rows]
        return values[numbers // n_out, :, numbers % n_out]
    return as_matrix(module, values)[rows]


def factors(layer: Any) -> Factors:
    """The layer's parameters A and B."""
    if NAME in layer.lora_embedding_A:
        return layer.lora_embedding_A[NAME], layer.lora_embedding_B[NAME]
    return layer.lora_A[NAME].weight, layer.lora_B[NAME].weight


def delta(layer: Any, rows: Rows, values: Factors | None = None) -> np.ndarray:
    """Rows of the delta from PEFT's own get_delta_weight, float64 (n_rows, n_in), with other A and B if given."""
    own = factors(layer)
    a, b = values or own
    cls = type(layer)
    if cls is ParamWrapper:
        # Of the parameter itself PEFT only takes the type here, and would round to it.
        typed, changes = torch.empty(0, dtype=torch.float64), [(own[0], a.double()), (own[1], b.double())]
        with _another(layer.get_base_layer(), layer.parameter_name, typed), swapped(changes):
            return to_numpy(as_matrix(layer.get_base_layer(), layer.get_delta_weight(NAME))[rows])
    if cls is Embedding:
        a = a[:, rows]
    else:
        b = b[rows]
    with swapped([(own[0], a.double()), (own[1], b.double())]):
        return to_numpy(as_matrix(layer.get_base_layer(), layer.get_delta_weight(NAME)))


def to_numpy(values: torch.Tensor) -> np.ndarray:
    """The values in float64."""
    result: np.ndarray = plain(values.detach()).double().numpy()
    return result


@contextmanager
def swapped(parameters: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[None]:
    """With other values in some parameters."""
    before = [parameter.data for parameter, _ in parameters]
    for parameter, values in parameters:
        parameter.data = values.data
    try:
        yield
    finally:
        for (parameter, _), values in zip(parameters, before, strict=True):
            parameter.data = values


@contextmanager
def _another(module: nn.Module, name: str, parameter: torch.Tensor) -> Iterator[None]:
    """With another tensor in a parameter's place."""
    before = module.get_parameter(name)
    module.register_parameter(name, nn.Parameter(parameter, requires_grad=False))
    try:
        yield
    finally:
        module.register_parameter(name, before)
