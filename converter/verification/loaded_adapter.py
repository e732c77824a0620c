"""An adapter in PEFT, on its prepared base: loaded key by key, so that nothing of it is lost.

PEFT 0.21.2: set_peft_model_state_dict in peft/utils/save_and_load.py, which only warns of a key it has no place for;
convert_peft_config_for_transformers and convert_peft_adapter_state_dict_for_transformers, by which LoRAs on single
experts, as transformers 4 had them, are joined for transformers 5.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from peft import LoraConfig, PeftModelForCausalLM, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.lora.variants import ALoraLinearVariant, DoraLinearVariant
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from converter.derive.adapter import Adapter
from converter.derive.adapter_keys import Role, bare_key, parse_key
from converter.derive.adapter_tensors import AdapterTensor, is_parameters
from converter.errors import ConverterError
from converter.peft_config import read_peft_config
from converter.transformers_base import quiet
from converter.verification.peft_layers import NAME, Factors, delta, factors, is_product
from converter.verification.prepared_base import PreparedBase, read_values

_PREFIX: Final = "base_model.model."
_MATRICES: Final = (nn.Linear, nn.Embedding, Conv1D)
# A LoRA on one expert: the path of all experts, the expert's number, the projection.
_OF_EXPERT: Final = re.compile(r"(?P<experts>.+\.experts)\.(?P<expert>\d+)\.(?P<projection>\w+)")
# What transformers 5 calls otherwise than 4 did, and the parts of the joint gate and up; w1, w2, w3 are Mixtral's.
_RENAMED: Final = re.compile(r"\.block_sparse_moe\.experts$")
_PARTS: Final = {"gate_proj": (2, 0), "up_proj": (2, 1), "w1": (2, 0), "w3": (2, 1)}
# Values of init_lora_weights that leave the base as it is, once the adapter's own factors are loaded.
_HARMLESS: Final = (True, False, None, "gaussian", "orthogonal", "eva")
# Those that change it the same way every time; pissa_niter_4 draws random numbers.
_INITIALIZED: Final = ("pissa", "olora")

# Keys of state dicts saved by hand may have the adapter's name in them.
_SUFFIXES: Final[Mapping[Role, str]] = {
    "lora_A": "lora_A.weight",
    "lora_B": "lora_B.weight",
    "lora_B.bias": "lora_B.bias",
    "lora_embedding_A": "lora_embedding_A",
    "lora_embedding_B": "lora_embedding_B",
    "lora_magnitude_vector": "lora_magnitude_vector",
    "trainable_tokens_delta": "token_adapter.trainable_tokens_delta",
}

Saved = dict[AdapterTensor, torch.Tensor]
Change = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class LoadedAdapter:
    """PEFT's model. ``overwritten`` are parameters of the base that loading changed, and their values before.

    ``initial`` are the factors that PiSSA or OLoRA started from, by the path of their layer: what is served is the
    base, plus the adapter's delta, minus theirs.
    """

    model: Any  # torch types every attribute of a module as a Tensor too
    overwritten: tuple[Change, ...]
    initial: Mapping[str, Factors]


def load_adapter(prepared: PreparedBase, adapter: Adapter) -> LoadedAdapter:
    """Put ``adapter`` on the base. Raises ConverterError where PEFT can't, or where it would lose a value."""
    base = prepared.model
    parameters = {id(parameter) for parameter in base.parameters()}
    try:
        with quiet():
            config = _config(prepared, adapter)
            before = _changed_by_initialization(base, config)
            model = _attached(base, config)
            _refuse_variants(model, adapter)
            initial = _initial_factors(model, prepared, adapter) if before or adapter.initial else {}
            overwritten = [*before, *_to_be_overwritten(model, prepared, adapter, parameters)]
            if adapter.initial:
                overwritten += _subtract(model, initial)
            saved = _load(model, prepared, adapter)
    except (AssertionError, AttributeError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise ConverterError(f"{adapter.path}: PEFT can't load this adapter: {error}") from error
    _check_loaded(model, prepared, saved)
    _check_initial(model, initial, before)
    model.eval()
    return LoadedAdapter(model, tuple(overwritten), initial)


def _attached(base: Any, config: Any) -> Any:
    if not getattr(config, "use_dora", False) or config.init_lora_weights in _INITIALIZED:
        return PeftModelForCausalLM(base, config, adapter_name=NAME)
    # DoRA starts from the norms of the base's weights plus its delta: no need to compute what the file overwrites.
    model = PeftModelForCausalLM(base, config, adapter_name=NAME, low_cpu_mem_usage=True)
    for path, parameter in [*model.named_parameters(remove_duplicate=False)]:
        if parameter.is_meta:
            module, _, name = path.rpartition(".")
            empty = nn.Parameter(torch.zeros(parameter.shape), requires_grad=False)
            model.get_submodule(module).register_parameter(name, empty)
    return model


# --- The config -------------------------------------------------------------------------------------------------------


def _config(prepared: PreparedBase, adapter: Adapter) -> Any:
    is_of_mlx = adapter.config is not None and adapter.config.mlx is not None
    config: Any = LoraConfig(**_fields_of_mlx(adapter)) if is_of_mlx else read_peft_config(adapter.path)
    config.inference_mode = True
    if config.is_prompt_learning:
        raise ConverterError(
            f"{adapter.path}: {config.peft_type.value} changes no weights, which is all that is verified"
        )
    if type(config) is LoraConfig:
        # The file says which modules have a delta. Patterns written for another wrapping of the model may match none.
        config.target_modules = sorted(set(_targets(prepared, adapter)))
        config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
        config.layer_replication = None  # done already
        config.modules_to_save = _saved_names(adapter, config.modules_to_save)
        config.init_lora_weights = _initialization(adapter, config)
    return config


def _saved_names(adapter: Adapter, names: list[str] | None) -> list[str] | None:
    """The names of modules_to_save without those that only modules of a part that was left out go by."""
    left_out = {tensor.path for tensor in adapter.left_out}
    there = {tensor.path for tensor in adapter.saved_modules}
    return [name for name in names or [] if _ends(there, name) or not _ends(left_out, name)] or None


def _ends(paths: set[str], name: str) -> bool:
    return any(path.endswith(name) or f".{name}." in f".{path}" for path in paths)


def _fields_of_mlx(adapter: Adapter) -> dict[str, Any]:
    """What PEFT would have written of an adapter of mlx_lm's, which has a config of its own."""
    fields = dict(adapter.config.raw) if adapter.config else {}
    return {name: fields[name] for name in ("r", "lora_alpha", "use_dora")}


def _targets(prepared: PreparedBase, adapter: Adapter) -> Iterator[str]:
    modules = dict(prepared.model.named_modules(remove_duplicate=False))
    for pair in adapter.pairs:
        path, of_expert = prepared.path(pair.module), _OF_EXPERT.fullmatch(pair.module)
        if is_parameters(pair.a):
            continue  # target_parameters name it: PEFT wraps the weight, and refuses to wrap its module too
        if of_expert:
            yield of_expert["projection"]  # PEFT makes a target parameter of it
        elif isinstance(modules.get(path), _MATRICES):
            yield path


def _initialization(adapter: Adapter, config: Any) -> Any:
    method = config.init_lora_weights
    if adapter.initial:
        return True
    if method not in (*_HARMLESS, *_INITIALIZED):
        raise ConverterError(
            f"{adapter.path}: init_lora_weights {method!r} changes the base by what only the initial adapter tells"
        )
    return method


def _refuse_variants(model: Any, adapter: Adapter) -> None:
    """KaSA changes the base when it is put on it, Arrow routes: only LoRA, DoRA and aLoRA are known here."""
    for layer in model.modules():
        variant = layer.lora_variant.get(NAME) if isinstance(layer, LoraLayer) else None
        if variant is not None and not isinstance(variant, DoraLinearVariant | ALoraLinearVariant):
            raise ConverterError(f"{adapter.path}: {type(variant).__name__} is not verified")


# --- The tensors ------------------------------------------------------------------------------------------------------


def _load(model: Any, prepared: PreparedBase, adapter: Adapter) -> Saved:
    saved = {tensor: read_values(tensor) for tensor in adapter.tensors}
    set_peft_model_state_dict(model, {_key(model, prepared, t): values for t, values in saved.items()}, NAME)
    return saved


def _key(model: Any, prepared: PreparedBase, tensor: AdapterTensor) -> str:
    """The key under which PEFT saves such a tensor of this model, whatever wrapped the model that it was saved from."""
    bare = bare_key(tensor.name)
    path, role = parse_key(tensor.name)
    if bare.startswith("base_model."):  # what all modules of another method share lies beside the model
        return bare
    if role in {"weight", "bias"}:
        is_tuned = isinstance(_submodule(model, prepared.path(path)), BaseTunerLayer)
        return f"{_PREFIX}{prepared.path(path)}.{'base_layer.' if is_tuned else ''}{role}"
    if role in _SUFFIXES:
        return f"{_PREFIX}{prepared.path(path)}.{_SUFFIXES[role]}"
    return _PREFIX + prepared.path(bare)


def _submodule(model: Any, path: str) -> nn.Module | None:
    try:
        found: nn.Module = model.get_base_model().get_submodule(path)
    except AttributeError:
        return None
    return found


def _check_loaded(model: Any, prepared: PreparedBase, saved: Saved) -> None:
    """Every value of the file is in the model, and every one of the adapter's from the file.

    What PEFT would save of the model now is what was saved; of other keys, PEFT only warns.
    """
    with quiet():
        of_adapter = get_peft_model_state_dict(model, save_embedding_layers=False)
    found, keys = {**model.state_dict(), **of_adapter}, {tensor: _key(model, prepared, tensor) for tensor in saved}
    for tensor, values in saved.items():
        # Of a tied head's rows, which are the embedding's, PEFT only knows the loaded key.
        loaded = found.get(keys[tensor], found.get(f"{keys[tensor]}.{NAME}"))
        if loaded is None and _OF_EXPERT.match(bare_key(tensor.name)):
            loaded = _factor_of_expert(model, prepared, tensor)
        if loaded is None or not _are_equal(loaded, values):
            state = "has no place in" if loaded is None else "was overwritten in"
            raise ConverterError(f"{tensor.tensor.path}: {tensor.key} {state} PEFT's model of this base")
    joined = any(_OF_EXPERT.match(bare_key(tensor.name)) for tensor in saved)
    lacking = sorted(key for key in of_adapter.keys() - set(keys.values()) if not key.endswith(".bias"))
    if lacking and not joined:
        raise ConverterError(f"PEFT's model of this adapter has {lacking[0]}, which the file lacks")


def _are_equal(loaded: torch.Tensor, values: torch.Tensor) -> bool:
    same_shape = loaded.shape == values.shape
    return same_shape and torch.allclose(loaded, values.to(loaded.dtype), rtol=0, atol=0, equal_nan=True)


def _factor_of_expert(model: Any, prepared: PreparedBase, tensor: AdapterTensor) -> torch.Tensor | None:
    """One expert's factor out of the joint one: gate and up have half of the ranks each, and B is 0 beside its own."""
    match = _OF_EXPERT.match(bare_key(tensor.name))
    layer: Any = _submodule(model, prepared.path(_RENAMED.sub(".mlp.experts", match["experts"]))) if match else None
    if not match or not isinstance(layer, LoraLayer):
        return None
    n_parts, part = _PARTS.get(match["projection"], (1, 0))
    layer = layer.base_layer if n_parts == 2 and isinstance(layer.base_layer, LoraLayer) else layer
    a, b = factors(layer)
    expert, n = int(match["expert"]), layer.num_experts
    if tensor.role == "lora_A":
        return a.reshape(n, n_parts, -1, a.shape[1])[expert, part]
    return b.reshape(n_parts, b.shape[0] // n_parts, n_parts, -1, n)[part, :, part, :, expert]


# --- What the base loses ----------------------------------------------------------------------------------------------


def _to_be_overwritten(model: Any, prepared: PreparedBase, adapter: Adapter, parameters: set[int]) -> Iterator[Change]:
    """The base's own parameters that the file has values for: saved base layers, biases, ends with new rows."""
    named = dict(model.named_parameters(remove_duplicate=False))
    for tensor in adapter.tensors:
        parameter = named.get(_key(model, prepared, tensor))
        if parameter is not None and id(parameter) in parameters:
            yield parameter, parameter.detach().clone()


def _changed_by_initialization(base: nn.Module, config: Any) -> list[Change]:
    if getattr(config, "init_lora_weights", None) not in _INITIALIZED:
        return []
    weights = [base.get_parameter(f"{module}.weight") for module in config.target_modules]
    return [(weight, weight.detach().clone()) for weight in weights]


def _initial_factors(model: Any, prepared: PreparedBase, adapter: Adapter) -> Mapping[str, Factors]:
    """The factors before training: of the initial adapter if there is one, else those PEFT starts from on this base."""
    if adapter.initial:
        _check_loaded(model, prepared, _load(model, prepared, adapter.initial))
    layers = {name: layer for name, layer in model.get_base_model().named_modules() if isinstance(layer, LoraLayer)}
    for name, layer in layers.items():
        if not is_product(layer):
            raise ConverterError(f"{adapter.path}: {name} starts from the base, but not as a plain LoRA")
    return {
        name: (a.detach().clone(), b.detach().clone())
        for name, (a, b) in zip(layers, map(factors, layers.values()), strict=True)
    }


def _subtract(model: Any, initial: Mapping[str, Factors]) -> Iterator[Change]:
    """Take the initial deltas off the base, as PEFT did when training began."""
    for name, values in initial.items():
        layer = model.get_base_model().get_submodule(name)
        weight = layer.get_base_layer().weight
        before = weight.detach().clone()
        weight.data = _without(before, layer, values)
        yield weight, before


def _without(weight: torch.Tensor, layer: Any, values: Factors) -> torch.Tensor:
    change = torch.from_numpy(delta(layer, slice(None), values))
    is_turned = isinstance(layer.get_base_layer(), Conv1D)
    return (weight.double() - (change.T if is_turned else change)).to(weight.dtype)


def _check_initial(model: Any, initial: Mapping[str, Factors], before: list[Change]) -> None:
    """PEFT took off the base what its initial factors give: OLoRA takes off another matrix of a Conv1D."""
    originals = {id(weight): values for weight, values in before}
    for name, values in initial.items():
        layer = model.get_base_model().get_submodule(name)
        weight = layer.get_base_layer().weight
        if id(weight) in originals and not torch.allclose(
            _without(originals[id(weight)], layer, values), weight, rtol=0, atol=1e-4 * float(weight.abs().max())
        ):
            raise ConverterError(
                f"{name}: PEFT's initialisation takes another matrix off the base than its factors give"
            )
