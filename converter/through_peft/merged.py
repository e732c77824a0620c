"""One layer merged by PEFT: in float64, on a copy, and only if the merge does what the layer does unmerged."""

import copy
from math import inf
from typing import Any, Final

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from converter.errors import RuleBroken
from converter.through_peft.attached import FAILURES, one_line
from converter.transformers_base import without_warnings

MERGE_DIFFERS_CODE: Final = "CF010"
# Of the delta: PEFT computes some methods in float32 (C3A 1.3e-7, DEFT 1.5e-6), most come to 1e-13 and less.
_MOST_OFF: Final = 1e-5
_ROUNDING: Final = 1e-12  # of the output, where a delta is small beside it
_N_SAMPLES: Final = 16

Parameters = dict[str, torch.Tensor]


def merged(module: str, layer: BaseTunerLayer) -> Parameters:
    """The module's parameters after the merge, float64: its weight, and its bias where it has one now.

    Raises RuleBroken where PEFT can't merge, or merges into something else than the unmerged layer computes.
    """
    try:
        with without_warnings():
            parameters, off = _merged_copy(layer)
    except FAILURES as error:
        raise _refused(module, f"PEFT can't merge it: {one_line(error)}") from error
    if off:
        raise _refused(module, f"PEFT's merge is off from its layer by {off:.3g} of the delta")
    return parameters


def _merged_copy(layer: BaseTunerLayer) -> tuple[Parameters, float]:
    """The merged parameters, and how far they are off from the unmerged layer, of the delta; 0 where it is allowed."""
    double: Any = copy.deepcopy(layer)  # a mixin: what it is mixed into makes it a module
    double.double().eval()
    inner = double.get_base_layer()
    samples = _samples(inner)
    with torch.no_grad():
        plain, wanted = inner(samples), double(samples)
        had_bias = _give_bias(inner)
        double.merge()
        found = inner(samples)
    off, delta = float((found - wanted).norm()), float((wanted - plain).norm())
    is_allowed = off <= _MOST_OFF * delta + _ROUNDING * float(wanted.norm())  # NaN is not
    return _parameters(inner, had_bias=had_bias), 0.0 if is_allowed else off / delta if delta else inf


def _refused(module: str, why: str) -> RuleBroken:
    return RuleBroken(MERGE_DIFFERS_CODE, module, why)


def _samples(inner: nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if isinstance(inner, nn.Embedding):
        return torch.randint(inner.num_embeddings, (_N_SAMPLES,), generator=generator)
    weight = inner.get_parameter("weight")
    n_in = weight.shape[1] if isinstance(inner, nn.Linear) else weight.shape[0]  # Conv1D's is (in, out)
    return torch.randn(_N_SAMPLES, n_in, dtype=torch.float64, generator=generator)


def _give_bias(inner: nn.Module) -> bool:
    """A linear layer without a bias gets one of zeros: methods that train one (BEFT) merge only into one."""
    if not isinstance(inner, nn.Linear) or "bias" in dict(inner.named_parameters()):
        return True
    inner.bias = nn.Parameter(torch.zeros(inner.out_features, dtype=torch.float64))
    return False


def _parameters(inner: nn.Module, *, had_bias: bool) -> Parameters:
    parameters = {name: values.detach().contiguous() for name, values in inner.named_parameters(recurse=False)}
    if not had_bias and not parameters["bias"].any():
        del parameters["bias"]
    return parameters
