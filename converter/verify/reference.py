"""The reference: unmerged PEFT in float32 on CPU, loaded key by key so that nothing of the adapter is lost.

An adapter that parts the two ends of a tied base (a delta on the head or the embedding alone, or one on each)
is attached to a truly untied base: `lm_head.weight` becomes a Parameter of its own before PEFT sees the model.
On the tied one, PEFT loads a saved base layer of the head into the embedding too. A pair trained with
ensure_weight_tying stays on the tied base: on an untied one PEFT gives the head no delta.
PEFT: peft/tuners/tuners_utils.py and peft/utils/save_and_load.py, version 0.21.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils.other import ModulesToSaveWrapper
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from converter.errors import ConverterError
from converter.read.adapter import Adapter, AdapterTensor
from converter.read.adapter_keys import Role
from converter.read.module_paths import EMBEDDING, HEAD
from converter.verify.reference_base import load_base, quiet

Rows = slice | np.ndarray

_NAME: Final = "default"

# How PEFT writes a tensor of each role, and where it keeps it once loaded; both below the module's path.
_SAVED: Final[Mapping[Role, tuple[str, str]]] = {
    "lora_A": ("lora_A.weight", f"lora_A.{_NAME}.weight"),
    "lora_B": ("lora_B.weight", f"lora_B.{_NAME}.weight"),
    "lora_embedding_A": ("lora_embedding_A", f"lora_embedding_A.{_NAME}"),
    "lora_embedding_B": ("lora_embedding_B", f"lora_embedding_B.{_NAME}"),
    "base_layer.weight": ("base_layer.weight", "base_layer.weight"),
    "base_layer.bias": ("base_layer.bias", "base_layer.bias"),
    "weight": ("weight", f"modules_to_save.{_NAME}.weight"),
    "bias": ("bias", f"modules_to_save.{_NAME}.bias"),
}


class Reference:
    """A base with an adapter on it: logits with and without, and every weight in float64.

    ``names`` are the base's parameters, ``touched`` those that the adapter changes, ``pairs`` the modules with a
    LoRA. Rows are a slice or an array of indices.
    """

    def __init__(self, base_path: Path, adapter: Adapter) -> None:
        base = load_base(base_path)
        if _parts_the_ends(base, adapter):
            _untie(base)
        self.names = tuple(name for name, _ in base.named_parameters(remove_duplicate=False))
        self.touched = frozenset(_touched(tensor) for tensor in adapter.tensors)
        self.pairs = frozenset(pair.module for pair in adapter.pairs)
        self._overwritten = _to_be_overwritten(base, adapter)
        self._peft: Any = _attach(base, adapter)  # Any: torch types every attribute of a module as a Tensor too
        self._model: Any = self._peft.get_base_model()

    def logits(self, sequence: Sequence[int]) -> np.ndarray:
        """Logits of base and adapter at every position, float32 (n_tokens, n_vocab)."""
        with torch.inference_mode():
            logits: np.ndarray = self._peft(input_ids=torch.tensor([list(sequence)])).logits[0].numpy()
        return logits

    def base_logits(self, sequence: Sequence[int]) -> np.ndarray:
        """Logits of the base alone."""
        with self._peft.disable_adapter(), self._base_weights():
            return self.logits(sequence)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a parameter of the base model, such as ``model.layers.0.mlp.up_proj.weight``."""
        return tuple(self._own(name).shape)

    def weight(self, name: str, rows: Rows) -> np.ndarray:
        """Rows of a parameter as PEFT serves it, in float64: the saved one, or the base's plus the delta."""
        own = _double(self._own(name)[rows])
        module, _, parameter = name.rpartition(".")
        has_delta = isinstance(self._model.get_submodule(module), LoraLayer) and parameter == "weight"
        return own + self.delta(module, rows) if has_delta else own

    def base_weight(self, name: str, rows: Rows) -> np.ndarray:
        """Rows of the same parameter as the base has it, in float64."""
        with self._base_weights():
            return _double(self._own(name, saved=False)[rows])

    def delta(self, module: str, rows: Rows) -> np.ndarray:
        """Rows of the delta that PEFT adds to the module's weight, from its own get_delta_weight in float64."""
        layer = self._model.get_submodule(module)
        with _float64_factors(layer, rows):
            return _double(layer.get_delta_weight(_NAME))

    def _own(self, name: str, *, saved: bool = True) -> torch.Tensor:
        path, _, parameter = name.rpartition(".")
        module = self._model.get_submodule(path)
        if isinstance(module, LoraLayer):
            module = module.get_base_layer()
        elif isinstance(module, ModulesToSaveWrapper):
            module = module.modules_to_save[_NAME] if saved else module.original_module
        values: torch.Tensor = module.get_parameter(parameter)
        return values

    @contextmanager
    def _base_weights(self) -> Iterator[None]:
        parameters = [(self._own(name, saved=False), values) for name, values in self._overwritten.items()]
        with _swapped(parameters):
            yield


def _touched(tensor: AdapterTensor) -> str:
    """The parameter that a tensor of the adapter changes."""
    return f"{tensor.module}.{'bias' if tensor.role.endswith('bias') else 'weight'}"


def _parts_the_ends(base: PreTrainedModel, adapter: Adapter) -> bool:
    touches_an_end = not {EMBEDDING, HEAD}.isdisjoint(tensor.module for tensor in adapter.tensors)
    pair = adapter.config is not None and adapter.config.ensure_weight_tying
    return _is_tied(base) and touches_an_end and not pair


def _is_tied(base: PreTrainedModel) -> bool:
    head, embedding = base.get_parameter(f"{HEAD}.weight"), base.get_parameter(f"{EMBEDDING}.weight")
    return head.data_ptr() == embedding.data_ptr()


def _untie(base: PreTrainedModel) -> None:
    # Assigning to .data would leave one Parameter under two names.
    base.config.tie_word_embeddings = False
    base.get_submodule(HEAD).weight = nn.Parameter(base.get_parameter(f"{EMBEDDING}.weight").detach().clone())
    if _is_tied(base):
        raise ConverterError(f"{type(base).__name__}: the head could not be parted from the embedding")


def _to_be_overwritten(base: PreTrainedModel, adapter: Adapter) -> dict[str, torch.Tensor]:
    """The base's own values of the parameters that a saved base layer replaces."""
    names = [f"{tensor.module}.{tensor.role.removeprefix('base_layer.')}" for tensor in adapter.base_layers]
    return {name: base.get_parameter(name).detach().clone() for name in names}


def _attach(base: PreTrainedModel, adapter: Adapter) -> PeftModel:
    tensors = {tensor: _read(tensor) for tensor in adapter.tensors}
    try:
        with quiet():
            model = PeftModel(base, _config(adapter), adapter_name=_NAME)
            saved = {f"base_model.model.{t.module}.{_role(t)[0]}": values for t, values in tensors.items()}
            set_peft_model_state_dict(model, saved, adapter_name=_NAME)
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise ConverterError(f"{adapter.path}: PEFT can't load this adapter: {error}") from error
    _check_loaded(model, tensors)
    model.eval()
    return model


def _config(adapter: Adapter) -> LoraConfig:
    config: LoraConfig = LoraConfig.from_pretrained(str(adapter.path))
    # The file says which modules have a delta. Patterns written for another wrapping of the model may match none.
    config.target_modules = sorted({pair.module for pair in adapter.pairs})
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    config.inference_mode = True
    return config


def _read(tensor: AdapterTensor) -> torch.Tensor:
    with safe_open(tensor.tensor.path, framework="pt") as file:
        values: torch.Tensor = file.get_tensor(tensor.key)
    return values


def _role(tensor: AdapterTensor) -> tuple[str, str]:
    if tensor.role not in _SAVED:
        raise ConverterError(f"{tensor.tensor.path}: {tensor.key} is a {tensor.role} tensor, which is not verified")
    return _SAVED[tensor.role]


def _check_loaded(model: PeftModel, tensors: Mapping[AdapterTensor, torch.Tensor]) -> None:
    """Every value of the file is in the model: PEFT only warns of a key it has no place for."""
    loaded = model.get_base_model().state_dict()
    for tensor, values in tensors.items():
        found = loaded.get(f"{tensor.module}.{_role(tensor)[1]}")
        if found is None or not torch.equal(found, values.to(found.dtype)):
            state = "has no place in" if found is None else "was overwritten in"
            raise ConverterError(f"{tensor.tensor.path}: {tensor.key} {state} PEFT's model of this base")


def _double(values: torch.Tensor) -> np.ndarray:
    result: np.ndarray = values.detach().double().numpy()
    return result


@contextmanager
def _float64_factors(layer: Any, rows: Rows) -> Iterator[None]:
    """With the layer's factors in float64, those of the given output rows alone."""
    if _NAME in layer.lora_embedding_A:
        a, b = layer.lora_embedding_A[_NAME], layer.lora_embedding_B[_NAME]
        factors = [(a, a.data[:, rows].double()), (b, b.data.double())]
    else:
        a, b = layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight
        factors = [(a, a.data.double()), (b, b.data[rows].double())]
    with _swapped(factors):
        yield


@contextmanager
def _swapped(parameters: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[None]:
    before = [parameter.data for parameter, _ in parameters]
    for parameter, values in parameters:
        parameter.data = values
    try:
        yield
    finally:
        for (parameter, _), values in zip(parameters, before, strict=True):
            parameter.data = values
