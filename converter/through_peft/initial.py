"""What PiSSA and OLoRA began with, computed again from the base's weights by PEFT's own initialisation.

The product of the factors is unique: the base's weight truncated to its largest singular values, or to the first
directions of its QR decomposition. How far two computations of it differ depends on how far apart those values are, so
PEFT's float32 is compared with the same in float64, and refused where the difference shows beside the delta.
pissa_init and olora_init in peft/tuners/lora/layer.py, PEFT 0.21.2.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import save_file

from converter.derive.adapter import Adapter, LoraPair, read_adapter
from converter.derive.base_model import BaseModel
from converter.derive.config_fields import initialization
from converter.errors import RuleBroken
from converter.peft_config import read_peft_config
from converter.read.checkpoint import CONFIG_NAME, SAFETENSORS_NAME
from converter.through_peft.attached import peft_failures, read_tensor
from converter.through_peft.shell import shell_of

LOST_CODE: Final = "CF012"
_MOST_OFF: Final = 1e-3  # of the delta: an effect ratio of about its square
_NAME: Final = "default"


def with_initial(adapter: Adapter, base: BaseModel, directory: Path) -> Adapter:
    """The adapter with its initial one, whose factors are written into ``directory``.

    Raises ConverterError where PEFT can't initialise it, RuleBroken where the factors can't be told well enough.
    """
    factors: dict[str, torch.Tensor] = {}
    for pair, weight, layer in _initialized(adapter, base):
        a, b = layer.lora_A[_NAME].weight.detach(), layer.lora_B[_NAME].weight.detach()
        _check(adapter, pair, weight, a, b)
        factors[f"base_model.model.{pair.a.path}.lora_A.weight"] = a.contiguous()
        factors[f"base_model.model.{pair.a.path}.lora_B.weight"] = b.contiguous()
    save_file(factors, directory / SAFETENSORS_NAME)
    raw = dict(adapter.config.raw) if adapter.config else {}
    (directory / CONFIG_NAME).write_text(json.dumps(raw | {"init_lora_weights": True}), encoding="utf-8")
    return replace(adapter, initial=read_adapter(directory))


def _initialized(adapter: Adapter, base: BaseModel) -> Iterator[tuple[LoraPair, torch.Tensor, Any]]:
    """Each pair whose base was changed, the weight before that, and PEFT's layer after it."""
    own = {tensor.module for tensor in adapter.base_layers if tensor.role == "base_layer.weight"}
    pairs = {pair.module: pair for pair in adapter.pairs if pair.module not in own and not pair.is_embedding}
    shell: Any = shell_of(base, iter(pairs), {})
    weights = {module: shell.get_submodule(module).weight.detach().clone() for module in pairs}
    with peft_failures(adapter):
        model: Any = PeftModel(shell, _config(adapter, pairs), adapter_name=_NAME).get_base_model()
    for module, pair in pairs.items():
        layer = model.get_submodule(module)
        yield pair, weights[module].T if layer.fan_in_fan_out else weights[module], layer


def _config(adapter: Adapter, pairs: dict[str, LoraPair]) -> LoraConfig:
    read = read_peft_config(adapter.path)
    return LoraConfig(
        init_lora_weights=read.init_lora_weights,
        target_modules=sorted(pairs),
        r=read.r,
        lora_alpha=read.lora_alpha,
        use_rslora=read.use_rslora,
        rank_pattern=read.rank_pattern,
        alpha_pattern=read.alpha_pattern,
    )


def _check(adapter: Adapter, pair: LoraPair, weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    if a.shape != pair.a.tensor.shape or b.shape != pair.b.tensor.shape:
        raise _lost(pair, f"PEFT begins with rank {a.shape[0]}, the file has {pair.rank}")
    initial = pair.scaling * b.double() @ a.double()
    trained = pair.scaling * read_tensor(pair.b).double() @ read_tensor(pair.a).double()
    off = (initial - _product(adapter, pair, weight.double())).norm() / (trained - initial).norm()
    if not off <= _MOST_OFF:
        raise _lost(pair, f"its first factors can't be told from the base: off by {off:.2g} of what was trained")


def _product(adapter: Adapter, pair: LoraPair, weight: torch.Tensor) -> torch.Tensor:
    """What the initial factors are worth, scaling * B @ A, in float64."""
    name = initialization(adapter.config)
    if name == "olora":
        q, r = torch.linalg.qr(weight)
        product: torch.Tensor = pair.scaling * q[:, : pair.rank] @ r[: pair.rank]
    else:
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        product = u[:, : pair.rank] * s[: pair.rank] @ v[: pair.rank]
    return product


def _lost(pair: LoraPair, why: str) -> RuleBroken:
    return RuleBroken(LOST_CODE, pair.module, why)
