"""PEFT's own layers of an adapter, on the shell of its base, with every tensor of the adapter loaded.

PEFT: peft/utils/save_and_load.py and BaseTuner in peft/tuners/tuners_utils.py, version 0.21.2.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open

from converter.derive.adapter import Adapter
from converter.derive.adapter_keys import bare_key
from converter.derive.adapter_tensors import AdapterTensor
from converter.derive.base_model import BaseModel
from converter.errors import ConverterError, RuleBroken
from converter.peft_config import read_peft_config
from converter.through_peft.shell import matrices_of, shell_of
from converter.transformers_base import without_warnings

NOT_LOADED_CODE: Final = "CF011"
_NAME: Final = "default"
# What PEFT's layers raise at configs and shapes they weren't made for.
FAILURES: Final = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)


def tuner_layers(adapter: Adapter, base: BaseModel) -> Iterator[tuple[str, BaseTunerLayer]]:
    """Each module that the adapter changes, and PEFT's layer of it. Raises ConverterError where PEFT can't load it."""
    with peft_failures(adapter):
        model = _attached(adapter, base)
    for name, module in model.get_base_model().named_modules():
        if isinstance(module, BaseTunerLayer):
            yield name, module


@contextmanager
def peft_failures(adapter: Adapter) -> Iterator[None]:
    """PEFT without its warnings; what it can't load is the adapter's fault."""
    try:
        with without_warnings():
            yield
    except ImportError as error:
        raise ConverterError(f"{adapter.path}: PEFT lacks a package for this adapter: {error}") from error
    except FAILURES as error:
        raise _not_loaded(adapter, f"PEFT can't load it: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """The beginning of an error's message."""
    return " ".join(str(error).split())[:300]


def _not_loaded(adapter: Adapter, why: str) -> RuleBroken:
    return RuleBroken(NOT_LOADED_CODE, adapter.path.name, why)


def _attached(adapter: Adapter, base: BaseModel) -> PeftModel:
    changed = {tensor.module for tensor in adapter.tensors if tensor.role == "tuner"}
    modules = (module for module in matrices_of(base) if not changed or module in changed)
    own = {_parameter(tensor): tensor.tensor for tensor in adapter.base_layers}
    model = PeftModel(shell_of(base, modules, own), _config(adapter, changed), adapter_name=_NAME)
    state = {_key(tensor): read_tensor(tensor) for tensor in adapter.tensors if tensor.role in ("tuner", "shared")}
    _check_keys(adapter, state, get_peft_model_state_dict(model, save_embedding_layers=False))
    set_peft_model_state_dict(model, state, adapter_name=_NAME)
    return model.eval()


def _parameter(tensor: AdapterTensor) -> str:
    return f"{tensor.module}.{tensor.role.removeprefix('base_layer.')}"


def _config(adapter: Adapter, changed: Iterable[str]) -> Any:
    config = read_peft_config(adapter.path)
    # The file says which modules it changes. Patterns written for another wrapping of the model may match none.
    if changed:
        config.target_modules = sorted(changed)
        for selection in ("exclude_modules", "layers_to_transform", "layers_pattern"):
            if hasattr(config, selection):
                setattr(config, selection, None)
    # Whole parameters are read by the plan itself, and biases of tuned modules lie in the shell.
    config.task_type, config.modules_to_save, config.inference_mode = None, None, True
    if hasattr(config, "bias"):
        config.bias = "none"
    return config


def _key(tensor: AdapterTensor) -> str:
    """The tensor's key as PEFT gives it on the shell, where modules have their plain paths."""
    if tensor.role == "shared":
        return tensor.name
    return f"base_model.model.{tensor.module}{bare_key(tensor.name).removeprefix(tensor.path)}"


def read_tensor(tensor: AdapterTensor) -> torch.Tensor:
    """The numbers of a tensor."""
    with safe_open(tensor.tensor.path, framework="pt") as file:
        values: torch.Tensor = file.get_tensor(tensor.key)
    return values


def _check_keys(adapter: Adapter, state: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    """Every tensor has its place, and every place its tensor: PEFT warns of the first at most, never of the other."""
    excess, missing = sorted(state.keys() - wanted.keys()), sorted(wanted.keys() - state.keys())
    if excess:
        raise _not_loaded(adapter, f"PEFT has no place for {', '.join(excess[:3])} ({len(excess)} tensors)")
    if missing:
        raise _not_loaded(adapter, f"lacks {', '.join(missing[:3])} ({len(missing)} tensors)")
