"""The base as the adapter saw it in training: tied or truly untied, its vocabulary resized, its layers replicated.

PEFT 0.21.2: set_additional_trainable_modules in peft/utils/other.py, save_embedding_layers in
peft/utils/save_and_load.py, replicate_layers in peft/tuners/tuners_utils.py.

Which base gives back the logits of training, of a tied one:
- LoRA on one end or on both, or an end in modules_to_save: a truly untied one. On the tied one, PEFT loads a saved base
  layer of the head into the embedding too.
- ensure_weight_tying: the tied one. On an untied one PEFT gives the head neither delta nor saved weight.
- trainable_token_indices: the tied one. PEFT puts the embedding's rows into the head too, if the base is tied. Where
  they name the head and the file has its rows, each end has its own.
- ends that PEFT saved for their new rows alone: the tied one, unless they differ.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from peft.tuners.tuners_utils import replicate_layers
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from converter.derive.adapter import Adapter
from converter.derive.adapter_keys import Role
from converter.derive.adapter_tensors import AdapterTensor
from converter.derive.module_paths import EMBEDDING, HEAD, normal_module
from converter.errors import ConverterError
from converter.read.adapter_config import AdapterConfig
from converter.transformers_base import head_of, is_tied, untie

_WHOLE: Final[frozenset[Role]] = frozenset({"weight", "base_layer.weight"})
_DELTAS: Final[frozenset[Role]] = frozenset({"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "tuner"})


@dataclass(frozen=True, slots=True)
class PreparedBase:
    """The model, ready for PEFT. ``paths`` are the model's own of normal module paths.

    ``n_rows_needed`` is how many rows of the vocabulary a deployment can't do without, 0 where the adapter doesn't
    say. ``layers`` are the layers behind the replicated ones, ``own_layers`` what they were made of.
    """

    model: PreTrainedModel
    paths: Mapping[str, str]
    is_resized: bool
    n_rows_needed: int
    layers: tuple[int, ...]
    own_layers: nn.ModuleList | None

    def path(self, name: str) -> str:
        """A normal module path, with or without a parameter behind it, as the model spells it."""
        name = normal_module(name)
        module = EMBEDDING if name.startswith(f"{EMBEDDING}.") else name
        module = module.partition(".base_layer")[0]  # of fused experts PEFT wraps one parameter around the other
        return self.paths.get(module, module) + name.removeprefix(module)


def prepare_base(base: Any, adapter: Adapter) -> PreparedBase:
    """Make of ``base``, in place, what the adapter was trained on."""
    if is_tied(base) and _parts_the_ends(adapter):
        untie(base)
    n_before = len(base.get_input_embeddings().weight)
    n_rows = _n_rows(adapter, n_before)
    if n_rows != n_before:
        _resize(base, adapter, n_rows)
    own_layers, layers = None, tuple(_replicated(adapter))
    if layers:
        own_layers = _decoder(base).layers
        replicate_layers(base, [list(span) for span in adapter.config.layer_replication])  # type: ignore[union-attr, misc]  # there is one
    paths = {normal_module(name): name for name, _ in base.named_modules(remove_duplicate=False)}
    return PreparedBase(base, paths, n_rows != n_before, _n_rows_needed(adapter, n_before, n_rows), layers, own_layers)


def read_values(tensor: AdapterTensor) -> torch.Tensor:
    """The values of one of the adapter's tensors, in the type they are saved in."""
    with safe_open(tensor.tensor.path, framework="pt") as file:
        values: torch.Tensor = file.get_tensor(tensor.key)
    return values.T.contiguous() if tensor.tensor.transposed else values


# --- Ties -------------------------------------------------------------------------------------------------------------


def _parts_the_ends(adapter: Adapter) -> bool:
    config = adapter.config
    if config is None or config.ensure_weight_tying:
        return False
    return any(_is_of_one_end(tensor, config) for tensor in _at_ends(adapter)) or _saved_ends_differ(adapter)


def _is_of_one_end(tensor: AdapterTensor, config: AdapterConfig) -> bool:
    if tensor.role == "trainable_tokens_delta":
        return tensor.module == HEAD and isinstance(config.trainable_token_indices, Mapping)
    is_named = tensor.role in {"weight", "copy"} and tensor.path.endswith(config.modules_to_save)
    return is_named or tensor.role in _DELTAS


def _at_ends(adapter: Adapter) -> Iterator[AdapterTensor]:
    return (tensor for tensor in adapter.tensors if tensor.module in {EMBEDDING, HEAD})


def _saved_ends_differ(adapter: Adapter) -> bool:
    saved = {tensor.module: tensor for tensor in _at_ends(adapter) if tensor.role in _WHOLE}
    if len(saved) < 2:
        return False
    first, second = map(read_values, saved.values())
    return not torch.equal(first, second)


# --- Vocabulary -------------------------------------------------------------------------------------------------------


def _n_rows(adapter: Adapter, n_before: int) -> int:
    """How many rows head and embedding had in training, as far as the adapter says."""
    stated = [rows for tensor in _at_ends(adapter) for rows in _rows_of(tensor)]
    if stated:
        return max(stated)
    highest = max((index for rows in adapter.token_rows for index in rows.indices), default=-1)
    return max(highest + 1, _n_tokens(adapter)) if highest >= n_before else n_before


def _rows_of(tensor: AdapterTensor) -> Iterator[int]:
    if tensor.role in _WHOLE or (tensor.role == "lora_B" and tensor.module == HEAD):
        yield tensor.tensor.shape[0]
    elif tensor.role == "lora_embedding_A":
        yield tensor.tensor.shape[1]


def _n_tokens(adapter: Adapter) -> int:
    tokenizer = adapter.tokenizer
    return tokenizer.n_tokens if tokenizer else 0


def _n_rows_needed(adapter: Adapter, n_before: int, n_rows: int) -> int:
    # Rows behind the tokens are padding, which llama.cpp's conversion of Gemma 3 leaves out.
    is_padding = n_rows <= n_before or 0 < _n_tokens(adapter) <= n_before
    touched = (index + 1 for rows in adapter.token_rows for index in rows.indices)
    return max(touched, default=0) if is_padding else n_rows


def _resize(base: Any, adapter: Adapter, n_rows: int) -> None:
    """What resize_token_embeddings does; that would read both ends. What the base lacks has no effect in it: zeros."""
    embedding, head, is_one = base.get_input_embeddings(), head_of(base), is_tied(base)
    _refuse_unknown_rows(base, adapter, range(len(embedding.weight), n_rows))
    embedding.weight = _with_rows(embedding.weight, n_rows)
    head.weight = embedding.weight if is_one else _with_rows(head.weight, n_rows)
    embedding.num_embeddings = head.out_features = base.vocab_size = base.config.get_text_config().vocab_size = n_rows


def _with_rows(weight: torch.Tensor, n_rows: int) -> nn.Parameter:
    n_before, n_columns = weight.shape
    kept = weight if n_rows > n_before else weight[:n_rows]
    return nn.Parameter(torch.cat([kept, torch.zeros(n_rows - len(kept), n_columns)]), requires_grad=False)


def _refuse_unknown_rows(base: PreTrainedModel, adapter: Adapter, new: range) -> None:
    """New rows were random in training: only the adapter can say what they are."""
    known = {module: _known_rows(adapter, module) for module in (EMBEDDING, HEAD)}
    if is_tied(base):
        known = {EMBEDDING: known[EMBEDDING] | known[HEAD]}
    for module, indices in known.items():
        lacking = [row for row in new if row not in indices and -1 not in indices]
        if lacking:
            raise ConverterError(
                f"{adapter.path}: nothing says what row {lacking[0]} of {module} is: the base has {new.start} rows, "
                f"the adapter {new.stop}"
            )


def _known_rows(adapter: Adapter, module: str) -> set[int]:
    """The rows of an end that the adapter gives values; -1 for all."""
    whole = {-1 for tensor in adapter.tensors if tensor.module == module and tensor.role in _WHOLE}
    return whole | {index for rows in adapter.token_rows if rows.module == module for index in rows.indices}


# --- Layers -----------------------------------------------------------------------------------------------------------


def _replicated(adapter: Adapter) -> Iterator[int]:
    for begin, end in adapter.config.layer_replication if adapter.config else ():
        yield from range(begin, end)


def _decoder(base: Any) -> Any:
    return base.get_decoder()
