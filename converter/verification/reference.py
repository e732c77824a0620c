"""The reference: unmerged PEFT in float32 on CPU, for logits with and without the adapter, and every weight in float64.

Parameters have the names of the text model's modules as `converter.derive.module_paths` spells them, and `.weight` or
`.bias` behind: GPT-2's embedding is ``model.embed_tokens.weight``, fused experts are ``....experts.down_proj.weight``
and ``....experts.down_proj.bias``.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from peft.tuners.lora.layer import Linear, LoraLayer, ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper, TrainableTokensWrapper
from torch import nn

from converter.derive.adapter import Adapter
from converter.derive.module_paths import EMBEDDING, HEAD, normal_module, tower_of
from converter.transformers_base import quiet
from converter.verification.forward import Forward, States
from converter.verification.layer_parts import is_divisible, part
from converter.verification.loaded_adapter import load_adapter
from converter.verification.peft_layers import (
    NAME,
    Rows,
    as_matrix,
    delta,
    is_product,
    is_turned,
    module_at,
    own_module,
    rows_of,
    saved_module,
    swapped,
    to_numpy,
    wrapper_of,
)
from converter.verification.peft_merges import brings_bias, merged, refuse_wrong_merges
from converter.verification.prepared_base import prepare_base
from converter.verification.stored_weights import Storage, keep, let_go, stored_in
from converter.verification.streamed_base import streamed_base

_N_ROWS: Final = 4096  # at a time, of numbers that are compared

# Weights that are kept while they are asked for block by block: a head is compared with its embedding.
_N_KEPT: Final = 2


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a parameter lies in the model: the module's path, and the parameter's name in it."""

    path: str
    parameter: str


class Reference:
    """A base with an adapter on it.

    ``names`` are the parameters, ``touched`` those that the adapter changes, ``pairs`` the modules whose weight gets
    scaling * B @ A and nothing else. ``layers`` are the base's own behind replicated ones, if they are.
    ``n_rows_needed`` is how many rows a served vocabulary must have, ``invocation_tokens`` are aLoRA's.
    Rows are a slice or an array of indices.
    """

    def __init__(self, base_path: Path, adapter: Adapter) -> None:
        adapter = adapter.origin.adapter if adapter.origin else adapter
        with quiet():
            prepared = prepare_base(streamed_base(base_path), adapter)
            stored = prepared.model.state_dict(
                keep_vars=True
            )  # with buffers that a checkpoint keeps (Gemma 4's scalars)
            self._places = {_name(path): _place(path) for path in stored if _is_compared(path, adapter)}
            self._loaded = load_adapter(prepared, adapter)
        self._peft: Any = self._loaded.model
        self._model: Any = self._peft.get_base_model()
        self._own_layers = prepared.own_layers
        self._places |= dict(self._new_biases())
        self._last: tuple[object, Any] = (None, None)
        self._kept: deque[tuple[Storage, ...]] = deque()
        self.names = tuple(self._places)
        self.layers, self.n_rows_needed = prepared.layers, prepared.n_rows_needed
        self.invocation_tokens = adapter.config.alora_invocation_tokens if adapter.config else ()
        resized = {f"{EMBEDDING}.weight", f"{HEAD}.weight"} if prepared.is_resized else set()
        self.touched = frozenset(name for name in self.names if self._is_touched(name)) | resized
        self.pairs = frozenset(name.removesuffix(".weight") for name in self.names if self._is_pair(name))
        self.forward = Forward(self._peft, prepared.own_layers)
        refuse_wrong_merges(self._model, lambda: self.logits(range(8)))

    def logits(self, sequence: Sequence[int]) -> np.ndarray:
        """Logits of base and adapter at every position, float32 (n_tokens, n_vocab)."""
        (states,) = self.states([sequence])
        return np.concatenate([self.forward.logits(states, block) for block in self.blocks(len(sequence))])

    def base_logits(self, sequence: Sequence[int]) -> np.ndarray:
        """Logits of the base alone, float32 (n_tokens, n_vocab); of tokens that it lacks they are 0."""
        with self.without_adapter():
            return self.logits(sequence)

    @property
    def longest_shared(self) -> int:
        """Up to how many tokens sequences may run together."""
        # Where invocation tokens begin is counted from the end, padding included.
        return 0 if self.invocation_tokens else self.forward.shared_length

    def blocks(self, n_tokens: int) -> Iterator[slice]:
        """Ranges of positions that cover a sequence, each small enough for logits."""
        # An activated head is on from one position on.
        return iter([slice(0, n_tokens)]) if self.invocation_tokens else self.forward.blocks(n_tokens)

    def states(self, sequences: Sequence[Sequence[int]]) -> list[States]:
        """What the head is given for each of the sequences, which go through the layers together."""
        return self.forward.states(sequences)

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """With the base alone: what `logits` and `states` give in here is the base's."""
        with quiet(), self._peft.disable_adapter(), self._base_weights(), self._base_layers():
            yield

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a parameter: (out, in), (n_experts, out, in) or (n,); of experts' biases (n_experts, out).

        Kernels over one channel each are (n, width).
        """
        values, module = self._own(name, own_module), self._own_module(name)
        if values.dim() == 3 and isinstance(module, nn.Conv1d):
            values = as_matrix(module, values)
        return tuple(values.mT.shape if is_turned(module, values) else values.shape)

    def weight(self, name: str, rows: Rows) -> np.ndarray:
        """Rows of a parameter as PEFT serves it, in float64: (n_rows, n_in), of a vector (n_rows,).

        Rows of all experts are one below the other.
        """
        layer, parameter = self._layer(name), self._places[name].parameter
        if self._is_pair(name):
            whole: np.ndarray = self._before_delta(name, rows) + self.delta(name.removesuffix(".weight"), rows)
            return whole
        if not _is_changed_by_layer(layer, name):
            return to_numpy(self._rows(name, self._own(name, saved_module), rows))
        if is_divisible(layer) and isinstance(layer, Linear):
            self._keep(name)
            return to_numpy(merged(part(layer, rows)).get_parameter(parameter))
        module: Any = self._once((self._places[name].path, "merged"), lambda: merged(layer))
        return to_numpy(rows_of(module, module.get_parameter(parameter), rows))

    def base_weight(self, name: str, rows: Rows) -> np.ndarray:
        """Rows of the same parameter as the base has it, in float64: (n_rows, n_in), of a vector (n_rows,)."""
        with self._base_weights():
            return to_numpy(self._rows(name, self._own(name, own_module), rows))

    def number(self, name: str) -> float:
        """A parameter of one number, as the base has it."""
        self._keep(name)
        return float(to_numpy(self._own(name, own_module).reshape(1))[0])

    def is_as_in_base(self, name: str) -> bool:
        """Whether each row that PEFT's model has of a parameter is the base's own, number by number."""
        n_rows, step = prod(self.shape(name)[:-1] or self.shape(name)), _N_ROWS
        blocks = (slice(begin, min(begin + step, n_rows)) for begin in range(0, n_rows, step))
        return all(np.array_equal(self.weight(name, rows), self.base_weight(name, rows)) for rows in blocks)

    def setting(self, field: str) -> float:
        """A number of the model's config, or one of a list of it: ``mlp_multipliers.1``."""
        name, _, at = field.partition(".")
        value = getattr(self._model.config.get_text_config(), name)
        return float(value[int(at)] if at else value)

    def delta(self, module: str, rows: Rows) -> np.ndarray:
        """Rows of what PEFT adds to the weight of one of ``pairs``, in float64 (n_rows, n_in)."""
        layer, path = self._layer(f"{module}.weight"), self._places[f"{module}.weight"].path
        if isinstance(layer, ParamWrapper):
            whole = self._once((module, "delta"), lambda: delta(layer, slice(None)))
            return np.asarray(whole[rows])
        initial = self._loaded.initial.get(path)
        return delta(layer, rows) - delta(layer, rows, initial) if initial else delta(layer, rows)

    def _before_delta(self, name: str, rows: Rows) -> np.ndarray:
        # What PiSSA and OLoRA took off the base is part of the delta.
        if self._places[name].path in self._loaded.initial:
            return self.base_weight(name, rows)
        return to_numpy(self._rows(name, self._own(name, own_module), rows))

    def _layer(self, name: str) -> Any:
        """What PEFT put on the module of a parameter, or the module itself."""
        place = self._places[name]
        module = module_at(self._model, place.path)
        return wrapper_of(module, place.parameter) or own_module(module) if isinstance(module, ParamWrapper) else module

    def _own(self, name: str, of: Callable[[Any], Any]) -> torch.Tensor:
        place = self._places[name]
        module = of(module_at(self._model, place.path))
        values: torch.Tensor | None = getattr(module, place.parameter)
        return torch.zeros(module.out_features) if values is None else values  # a bias that the adapter brings

    def _own_module(self, name: str) -> Any:
        return own_module(module_at(self._model, self._places[name].path))

    def _rows(self, name: str, values: torch.Tensor, rows: Rows) -> torch.Tensor:
        self._keep(name)
        return rows_of(self._own_module(name), values, rows)

    def _keep(self, name: str) -> None:
        """Keep what is read of this weight: it is asked for block by block, in turns with at most one other."""
        storages = stored_in(module_at(self._model, self._places[name].path).parameters())
        if storages not in self._kept:
            keep(storages)
            self._kept.append(storages)
        while len(self._kept) > _N_KEPT:
            let_go(self._kept.popleft())

    def _is_pair(self, name: str) -> bool:
        return name.endswith(".weight") and is_product(self._layer(name))

    def _is_touched(self, name: str) -> bool:
        overwritten = {id(parameter) for parameter, _ in self._loaded.overwritten}
        own = self._own(name, own_module)
        layer = self._layer(name)
        return id(own) in overwritten or isinstance(layer, ModulesToSaveWrapper) or _is_changed_by_layer(layer, name)

    def _new_biases(self) -> Iterator[tuple[str, _Place]]:
        for path, layer in self._model.named_modules():
            if isinstance(layer, BaseTunerLayer) and brings_bias(layer):
                yield f"{normal_module(path)}.bias", _Place(path, "bias")

    def let_go(self) -> None:
        """Forget what is kept of weights that were asked for block by block."""
        self._last = (None, None)
        while self._kept:
            let_go(self._kept.popleft())

    def _once(self, key: object, make: Callable[[], Any]) -> Any:
        """What was made last, if it was for the same: a tensor is asked for block by block."""
        if self._last[0] != key:
            self._last = (None, None)
            self._last = (key, make())
        return self._last[1]

    @contextmanager
    def _base_weights(self) -> Iterator[None]:
        with swapped(self._loaded.overwritten):
            yield

    @contextmanager
    def _base_layers(self) -> Iterator[None]:
        """With the layers that the base has, where the adapter replicated some."""
        decoder, config = self._model.get_decoder(), self._model.config
        grown = decoder.layers if self._own_layers else None
        if grown:
            decoder.layers, config.num_hidden_layers = self._own_layers, len(self._own_layers or ())
        try:
            yield
        finally:
            if grown:
                decoder.layers, config.num_hidden_layers = grown, len(grown)


def _is_changed_by_layer(layer: nn.Module, name: str) -> bool:
    is_weight = name.endswith(".weight")
    if isinstance(layer, TrainableTokensWrapper):
        return is_weight
    if isinstance(layer, LoraLayer):
        return is_weight or bool(layer.lora_bias.get(NAME))
    return isinstance(layer, BaseTunerLayer)


def _place(path: str) -> _Place:
    module, _, parameter = path.rpartition(".")
    return _Place(module, parameter)


def _name(path: str) -> str:
    """The name of a parameter. Fused experts have no module of their own, no `.weight`, and a `_bias` (gpt-oss)."""
    place = _place(path)
    if place.parameter.endswith("_proj_bias"):
        return f"{normal_module(path.removesuffix('_bias'))}.bias"
    if place.parameter in {"weight", "bias"}:
        return f"{normal_module(place.path)}.{place.parameter}"
    return f"{normal_module(path)}.weight"


def _is_compared(path: str, adapter: Adapter) -> bool:
    """Whether a GGUF of the text model has to have a parameter: not a tower's that the adapter leaves alone."""
    return tower_of(path) is None or normal_module(_place(path).path) in adapter.modules
