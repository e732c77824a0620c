"""What PEFT's layers serve, in float64: deltas of plain LoRAs row by row, all else from PEFT's own merge of a copy.

PEFT 0.21.2: peft/tuners/lora/layer.py (get_delta_weight, ParamWrapper), peft/utils/other.py (wrappers).
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from peft.tuners.lora.layer import Embedding, Linear, LoraLayer, ParamWrapper
from peft.tuners.lora.variants import ALoraLinearVariant
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from converter.errors import ConverterError

NAME: Final = "default"
Rows = slice | np.ndarray
Factors = tuple[torch.Tensor, torch.Tensor]

# Of the delta's share of the output. PEFT computes C3A and DEFT in float32, whatever it is given: 1.3e-7 and 1.5e-6.
_MERGE_TOLERANCE: Final = 1e-5
_ROUNDING: Final = 1e-12  # of the output, where a delta is small beside it


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
    return is_lora and isinstance(_variant(layer), ALoraLinearVariant | None)


def _variant(layer: Any) -> Any:
    return layer.lora_variant.get(NAME) if isinstance(layer, LoraLayer) else None


def as_matrix(module: Any, values: torch.Tensor) -> torch.Tensor:
    """A parameter with output rows first, which Conv1D has last; experts one below the other. A view."""
    if isinstance(module, Conv1D) and values.dim() == 2:
        return values.T
    return values.reshape(-1, values.shape[-1]) if values.dim() == 3 else values


def factors(layer: Any) -> Factors:
    """The layer's parameters A and B."""
    if NAME in layer.lora_embedding_A:
        return layer.lora_embedding_A[NAME], layer.lora_embedding_B[NAME]
    return layer.lora_A[NAME].weight, layer.lora_B[NAME].weight


def delta(layer: Any, rows: Rows, values: Factors | None = None) -> np.ndarray:
    """Rows of the delta from PEFT's own get_delta_weight in float64, with other values of A and B if given."""
    own = factors(layer)
    a, b = values or own
    kind = type(layer)
    if kind is ParamWrapper:
        # Of the parameter itself PEFT only takes the type here, and would round to it.
        changes = [(layer.get_param(), torch.empty(0, dtype=torch.float64)), (own[0], a.double()), (own[1], b.double())]
        with swapped(changes):
            return to_numpy(as_matrix(None, layer.get_delta_weight(NAME))[rows])
    if kind is Embedding:
        a = a[:, rows]
    else:
        b = b[rows]
    with swapped([(own[0], a.double()), (own[1], b.double())]):
        return to_numpy(as_matrix(layer.get_base_layer(), layer.get_delta_weight(NAME)))


def merged(layer: Any) -> nn.Module:
    """A float64 copy of the base's own module with everything merged in that PEFT has on it.

    Raises ConverterError where PEFT can't merge.
    """
    double: Any = copy.deepcopy(layer).double()
    own = own_module(double)
    had_none = _lacks_bias(own)
    if had_none:
        # Unmerged, an added bias (lora_bias, BEFT) needs none to be added to; PEFT's merge does.
        own.bias = nn.Parameter(torch.zeros(own.out_features, dtype=torch.float64))
    result: Any = _merge(double)
    if had_none and not result.bias.any():
        result.bias = None
    return result  # type: ignore[no-any-return]  # a module


def _lacks_bias(module: Any) -> bool:
    return isinstance(module, nn.Linear) and getattr(module, "bias", None) is None


def _merge(layer: Any) -> Any:
    try:
        if hasattr(layer, "unload_and_optionally_merge_module"):
            return layer.unload_and_optionally_merge_module(True, False, [NAME])  # merge, not safely
        layer.merge(adapter_names=[NAME])
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise ConverterError(f"PEFT can't merge {type(layer).__name__}: {error}") from error
    return own_module(layer)


def brings_bias(layer: Any) -> bool:
    """Whether PEFT's layer adds a bias where the base has none."""
    if not _lacks_bias(own_module(layer)):
        return False
    is_lora = type(layer) in {Linear, ParamWrapper}
    return bool(layer.lora_bias.get(NAME)) if is_lora else merged(layer).bias is not None


# --- Is the merge what the layer does? --------------------------------------------------------------------------------


def refuse_wrong_merges(model: Any, run: Callable[[], object]) -> None:
    """Compare one layer of each kind, merged and not, on what it is given while ``run`` runs the model.

    Raises ConverterError where they differ: the weights that PEFT trained can then not be told.
    """
    kinds: dict[tuple[object, ...], str] = {}
    for name, module in model.named_modules():
        if _is_merged(module):
            kinds.setdefault(_kind(module), name)
    layers = {name: model.get_submodule(name) for name in kinds.values()}
    with _inputs_of(layers) as inputs:
        run()
    for name, (arguments, named) in inputs.items():
        _refuse_wrong_merge(name, layers[name], _double(arguments), _double(named))


def _is_merged(module: Any) -> bool:
    """Whether anything of the layer is served from its merge."""
    is_plain = is_product(module) and not module.lora_bias.get(NAME)
    return isinstance(module, BaseTunerLayer) and not is_plain


def _kind(module: Any) -> tuple[object, ...]:
    own = own_module(module)
    return type(module), type(_variant(module)), type(own), getattr(own, "bias", None) is None


@contextmanager
def _inputs_of(layers: Mapping[str, Any]) -> Iterator[dict[str, tuple[Any, Any]]]:
    """The arguments of each layer's first call."""
    inputs: dict[str, tuple[Any, Any]] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: object, arguments: Any, named: Any) -> None:
            inputs.setdefault(name, (arguments, named))

        return hook

    handles = [layer.register_forward_pre_hook(keep(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        yield inputs
    finally:
        for handle in handles:
            handle.remove()


def _double(values: Any) -> Any:
    match values:
        case torch.Tensor() if values.is_floating_point():
            return values.double()
        case tuple():
            return tuple(map(_double, values))
        case dict():
            return {name: _double(value) for name, value in values.items()}
        case _:
            return values


def _output(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result  # a router gives its logits first


def _refuse_wrong_merge(name: str, layer: Any, arguments: Any, named: Any) -> None:
    with torch.no_grad():
        double = copy.deepcopy(layer).double()
        layers = (double, own_module(double), merged(layer))
        wanted, plain, found = (_output(module(*arguments, **named)) for module in layers)
    off, change = float((found - wanted).norm()), float((wanted - plain).norm())
    if off > _MERGE_TOLERANCE * change + _ROUNDING * float(wanted.norm()):
        raise ConverterError(
            f"{name}: PEFT's merge is not what its layer ({type(layer).__name__}) does unmerged: off by {off:.3g}, "
            f"of a change of {change:.3g}"
        )


# --- Values -----------------------------------------------------------------------------------------------------------


def to_numpy(values: torch.Tensor) -> np.ndarray:
    """The values in float64."""
    result: np.ndarray = values.detach().double().numpy()
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
