"""What PEFT's layers serve in float64, from PEFT's own merge of a copy, and whether that merge is what they do."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import sqrt
from typing import Any, Final

import torch
from peft.tuners.lora.layer import Linear, ParamWrapper
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import TrainableTokensWrapper
from torch import nn

from converter.errors import ConverterError
from converter.verification.layer_parts import is_divisible, part, parts
from converter.verification.peft_layers import NAME, is_product, own_module, variant_of
from converter.verification.stored_weights import keeping

# Of the delta's share of the output. PEFT computes C3A and DEFT in float32, whatever it is given: 1.3e-7 and 1.5e-6.
_MERGE_TOLERANCE: Final = 1e-5
_ROUNDING: Final = 1e-12  # of the output, where a delta is small beside it


def merged(layer: Any) -> nn.Module:
    """A float64 copy of the base's own module with everything merged in that PEFT has on it.

    Raises ConverterError where PEFT can't merge.
    """
    double = _in_double(layer)
    own = own_module(double)
    had_none = _lacks_bias(own)
    if had_none:
        # Unmerged, an added bias (lora_bias, BEFT) needs none to be added to; PEFT's merge does.
        own.bias = nn.Parameter(torch.zeros(own.out_features, dtype=torch.float64))
    result: Any = _merge(double)
    if had_none and not result.bias.any():
        result.bias = None
    return result  # type: ignore[no-any-return]  # a module


def _in_double(layer: Any) -> Any:
    copied = copy.deepcopy(layer)
    return copied if _copies_rows(layer) else copied.double()


def _copies_rows(layer: Any) -> bool:
    """Whether nothing is computed: rows take the place of others, in their own type."""
    return isinstance(layer, TrainableTokensWrapper | TrainableTokensLayer)


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
        _refuse_wrong_merge(name, layers[name], arguments, named)


def _is_merged(module: Any) -> bool:
    """Whether anything of the layer is served from its merge."""
    is_plain = is_product(module) and not module.lora_bias.get(NAME)
    return isinstance(module, BaseTunerLayer) and not is_plain


def _kind(module: Any) -> tuple[object, ...]:
    own = own_module(module)
    return type(module), type(variant_of(module)), type(own), getattr(own, "bias", None) is None


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
    off2 = change2 = wanted2 = 0.0
    if not _copies_rows(layer):
        arguments, named = _double(arguments), _double(named)
    with torch.no_grad(), keeping(layer.parameters()):
        for piece in (part(layer, features) for features in parts(layer)) if is_divisible(layer) else (layer,):
            double = _in_double(piece)
            layers = (double, own_module(double), merged(piece))
            wanted, plain, found = (_output(module.forward(*arguments, **named)) for module in layers)
            off2, change2 = off2 + _norm2(found - wanted), change2 + _norm2(wanted - plain)
            wanted2 += _norm2(wanted)
    off, change = sqrt(off2), sqrt(change2)
    if off > _MERGE_TOLERANCE * change + _ROUNDING * sqrt(wanted2):
        raise ConverterError(
            f"{name}: PEFT's merge is not what its layer ({type(layer).__name__}) does unmerged: off by {off:.3g}, "
            f"of a change of {change:.3g}"
        )


def _norm2(values: torch.Tensor) -> float:
    return float(values.norm()) ** 2
