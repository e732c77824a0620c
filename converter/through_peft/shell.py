"""The part of a base that an adapter changes, as modules that PEFT can wrap, each at its Hugging Face path.

PEFT looks at names, shapes, weights and the order of modules, and at nothing else of a model: so no more of the base is
built than the adapter changes, and it needs no reader of transformers'. Head and embedding are always two modules here.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from converter.architectures import Place
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDINGS, HEAD
from converter.read.stored import StoredTensor
from converter.values.orders import inverse
from converter.values.rows import read_rows


def matrices_of(base: BaseModel) -> tuple[str, ...]:
    """The modules of a base that hold one matrix each, in the order in which transformers' model defines them."""
    names = tuple(base.architecture.modules) if base.architecture else ()
    first = (name for name in names if "{i}" not in name and name != HEAD)
    layers = (name.replace("{i}", str(i)) for i in range(base.dims["n_layer"]) for name in names if "{i}" in name)
    return tuple(module for module in (*first, *layers, HEAD) if _is_matrix(base, module))


def _is_matrix(base: BaseModel, module: str) -> bool:
    place, weight = base.place(module), base.weight(module)
    is_whole = place is not None and (place.is_whole_tensor or base.format == "huggingface")
    return is_whole and weight is not None and len(weight.shape) == 2


def shell_of(base: BaseModel, modules: Iterator[str], own: Mapping[str, StoredTensor]) -> nn.Module:
    """Build the modules, in float32. ``own`` are parameters (``lm_head.weight``) that the adapter brings itself."""
    root = nn.Module()
    for module in modules:
        place = base.place(module)
        if place is not None:
            _place(root, module, _layer(base, place, module, own))
    return root


def _place(root: nn.Module, path: str, layer: nn.Module) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        if parent not in dict(root.named_children()):
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    root.add_module(name, layer)


def _layer(base: BaseModel, place: Place, module: str, own: Mapping[str, StoredTensor]) -> nn.Module:
    weight = _parameter(base, place, base.weight(module), own.get(f"{module}.weight"))
    bias = _parameter(base, place, base.tensors.get(f"{module}.bias"), own.get(f"{module}.bias"))
    if weight is None:
        raise KeyError(module)
    layer = _empty(place, weight.shape[0], weight.shape[1], has_bias=bias is not None)
    layer.register_parameter("weight", nn.Parameter(weight.T.contiguous() if place.transposed else weight))
    if bias is not None:
        layer.register_parameter("bias", nn.Parameter(bias.flatten()))
    return layer


def _empty(place: Place, n_out: int, n_in: int, *, has_bias: bool) -> nn.Module:
    conv1d: Any = Conv1D  # without types
    with torch.device("meta"):
        if place.module in EMBEDDINGS:
            return nn.Embedding(n_out, n_in)
        layer: nn.Module = conv1d(n_out, n_in) if place.transposed else nn.Linear(n_in, n_out, bias=has_bias)
    return layer


def _parameter(
    base: BaseModel, place: Place, stored: StoredTensor | None, own: StoredTensor | None
) -> torch.Tensor | None:
    """The numbers as a matrix (out, in), its rows in Hugging Face's order: a GGUF's are put back into it."""
    tensor = own or stored
    if tensor is None:
        return None
    n_rows = tensor.shape[0]
    values = read_rows(tensor, 0, n_rows).astype(np.float32)
    if own is None and base.format == "gguf":
        rows, columns = base.orders(place)
        ordered = values[inverse(rows, n_rows)]
        if len(tensor.shape) > 1:
            ordered = ordered[:, inverse(columns, values.shape[1])]
        return torch.from_numpy(np.ascontiguousarray(ordered))  # SuperTuning writes through a flat view of it
    is_transposed = place.transposed and len(tensor.shape) == 2
    return torch.from_numpy(np.ascontiguousarray(values.T if is_transposed else values))
