"""What an adapter makes use of, in the words of the targets' tables: every field of PEFT's LoraConfig that can matter.

A plain LoRA has ``peft_files`` and ``lora``. What is in FEATURES is all that an adapter can have; a target that says
nothing of a feature is not known to serve it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final, NamedTuple

from converter.derive.adapter import Adapter, LoraPair
from converter.derive.base_model import BaseModel
from converter.derive.config_fields import FIELDS, holds_nothing, initialization
from converter.derive.module_paths import EMBEDDING, EMBEDDINGS, HEAD, tower_of
from converter.read.adapter_config import AdapterConfig

FEATURES: Final[Mapping[str, str]] = {
    "peft_files": "the files of PEFT",
    "mlx_files": "the files of mlx_lm",
    "lora": "LoRA on linear layers of attention and feed-forward parts",
    "some_layers": "LoRA on only some layers",
    "q_without_v": "LoRA on q_proj without v_proj in a layer",
    "kv_without_q": "LoRA on k_proj or v_proj without q_proj in a layer",
    "up_without_gate": "LoRA on up_proj without gate_proj in a layer",
    "rslora": "rsLoRA (use_rslora)",
    "alpha_pattern": "modules with an alpha of their own (alpha_pattern)",
    "rank_pattern": "modules with a rank of their own (rank_pattern)",
    "fractional_alpha": "an alpha that is no whole number",
    "target_regex": "target_modules is a pattern, no list",
    "head_lora_tied": "LoRA on lm_head, the base's head tied",
    "head_lora_untied": "LoRA on lm_head, the base's head its own",
    "embedding_lora_tied": "LoRA on embed_tokens, the base's head tied",
    "embedding_lora_untied": "LoRA on embed_tokens, the base's head its own",
    "tied_pair": "one delta for both ends of a tied base (ensure_weight_tying)",
    "base_layer": "the ends' own weights saved beside their LoRA",
    "saved_head_tied": "lm_head saved whole (modules_to_save), the base's head tied",
    "saved_head_untied": "lm_head saved whole, the base's head its own",
    "saved_embedding_tied": "embed_tokens saved whole, the base's head tied",
    "saved_embedding_untied": "embed_tokens saved whole, the base's head its own",
    "saved_norm": "norms saved whole",
    "saved_linear": "other modules saved whole",
    "bias_setting": "bias = all or lora_only",
    "trained_bias": "biases of the base, trained",
    "dora": "DoRA (use_dora)",
    "lora_bias": "a bias beside lora_B (lora_bias)",
    "token_rows": "rows of the embedding (trainable_token_indices)",
    "new_tokens": "more rows than the base has",
    "pissa": "PiSSA as trained (init_lora_weights)",
    "olora": "OLoRA as trained",
    "corda": "CorDA as trained",
    "lora_ga": "LoRA-GA as trained",
    "loftq": "LoftQ",
    "alora": "Activated LoRA (alora_invocation_tokens)",
    "layer_replication": "layers given several times (layer_replication)",
    "qalora": "QALoRA (use_qalora)",
    "bdlora": "block-diagonal LoRA (use_bdlora)",
    "arrow": "Arrow (arrow_config)",
    "kasa": "KaSA (kasa_config)",
    "monteclora": "MonteCLoRA (monteclora_config)",
    "megatron": "Megatron's parallel layers (megatron_config)",
    "expert_lora": "LoRA on experts or their router",
    "other_lora": "LoRA on other layers",
    "vision_lora": "LoRA on a vision or audio part",
    "ia3": "IA3",
    "loha": "LoHa",
    "other_method": "another method of PEFT",
    "other_type": "numbers stored as none of F32, F16, BF16",
    "sharded": "weights in several files",
    "renamed_keys": "keys that PEFT doesn't load (--rename-keys)",
    "initial_adapter": "served only with its initial adapter taken out (--initial-adapter)",
    "prequantized_base": "a base that is quantised already",
}


class Use(NamedTuple):
    """A feature that an adapter makes use of, and where: a key, a module or a field."""

    feature: str
    where: str


def features(adapter: Adapter, base: BaseModel | None) -> tuple[Use, ...]:
    """What an adapter makes use of on its base, each feature once. Without a base its ends are tied and untied."""
    uses: dict[str, Use] = {}
    for use in chain(_of_config(adapter), _of_pairs(adapter, base), _of_tensors(adapter, base), _of_files(adapter)):
        uses.setdefault(use.feature, use)
    if base and base.quantization:
        uses["prequantized_base"] = Use("prequantized_base", base.label)
    return tuple(uses[name] for name in FEATURES if name in uses)


# --- The config -------------------------------------------------------------------------------------------------------

# Each of these fields is refused where it holds a value and stands for itself.
_FIELDS: Final = {
    "lora_bias": "lora_bias",
    "use_dora": "dora",
    "alora_invocation_tokens": "alora",
    "layer_replication": "layer_replication",
    "use_qalora": "qalora",
    "use_bdlora": "bdlora",
    "arrow_config": "arrow",
    "kasa_config": "kasa",
    "monteclora_config": "monteclora",
    "megatron_config": "megatron",
}
_BEGUN_AS_PLAIN: Final = frozenset(name for name in FIELDS["init_lora_weights"].harmless if isinstance(name, str))


def _of_config(adapter: Adapter) -> Iterator[Use]:
    config = adapter.config
    if config is None:
        return
    if not config.is_lora:
        yield Use({"IA3": "ia3", "LOHA": "loha"}.get(str(config.peft_type), "other_method"), "peft_type")
        return
    yield from (Use(name, field) for field, name in _FIELDS.items() if not holds_nothing(config.raw.get(field)))
    yield from _of_initialization(config)
    if config.use_rslora:
        yield Use("rslora", "use_rslora")
    if config.bias != "none":
        yield Use("bias_setting", "bias")
    if isinstance(config.target_modules, str) and config.target_modules not in ("all", "all-linear"):
        yield Use("target_regex", "target_modules")
    alphas = {"lora_alpha": config.lora_alpha, **config.alpha_pattern}
    yield from (Use("fractional_alpha", name) for name, alpha in alphas.items() if alpha % 1)


def _of_initialization(config: AdapterConfig) -> Iterator[Use]:
    begun = initialization(config)
    stated = config.raw.get("init_lora_weights")
    if begun:
        yield Use("pissa" if begun.startswith("pissa") else begun, "init_lora_weights")
    elif isinstance(stated, str) and stated not in _BEGUN_AS_PLAIN:
        yield Use("loftq", "init_lora_weights")  # the only one left; of others nobody knows more


# --- LoRA -------------------------------------------------------------------------------------------------------------

_ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
_FEED_FORWARD: Final = ("gate_proj", "up_proj", "down_proj")
_LINEAR: Final = frozenset(
    {f"self_attn.{name}" for name in _ATTENTION} | {f"mlp.{name}" for name in _FEED_FORWARD},
)
_LAYERS: Final = "model.layers."


def _of_pairs(adapter: Adapter, base: BaseModel | None) -> Iterator[Use]:
    in_layers: dict[str, set[str]] = defaultdict(set)
    for pair in adapter.pairs:
        yield from _of_scaling(pair, adapter)
        if pair.module in (HEAD, EMBEDDING):
            yield from _of_end(pair, adapter, base)
            continue
        layer, _, name = pair.module.removeprefix(_LAYERS).partition(".")
        if pair.module.startswith(_LAYERS) and name in _LINEAR:
            yield Use("lora", pair.module)
            in_layers[layer].add(name.rpartition(".")[2])
        else:
            yield Use(_elsewhere(pair.module), pair.module)
    yield from _of_layers(in_layers, base)


def _elsewhere(module: str) -> str:
    if tower_of(module):
        return "vision_lora"
    is_of_experts = ".experts" in module or module.endswith((".gate", ".gate.weight", ".router"))
    return "expert_lora" if is_of_experts else "other_lora"


def _of_scaling(pair: LoraPair, adapter: Adapter) -> Iterator[Use]:
    config, patterns = adapter.config, adapter.patterns
    if config and patterns:
        if patterns.rank(pair.a.path) != config.r:
            yield Use("rank_pattern", pair.module)
        if patterns.alpha(pair.a.path) != config.lora_alpha:
            yield Use("alpha_pattern", pair.module)


def _of_end(pair: LoraPair, adapter: Adapter, base: BaseModel | None) -> Iterator[Use]:
    end = "head" if pair.module == HEAD else "embedding"
    if adapter.is_tied_pair and (base is None or base.tied):
        yield Use("tied_pair", pair.module)
        return
    yield from (Use(f"{end}_lora_{tie}", pair.module) for tie in _ties(base))


def _ties(base: BaseModel | None) -> tuple[str, ...]:
    """What the base's ends may be: without a base both."""
    return ("tied", "untied") if base is None else ("tied",) if base.tied else ("untied",)


def _of_layers(in_layers: Mapping[str, set[str]], base: BaseModel | None) -> Iterator[Use]:
    every = set().union(*in_layers.values())
    is_partial = base is not None and len(in_layers) < base.dims.get("n_layer", 0)
    for layer, names in in_layers.items():
        where = f"{_LAYERS}{layer}"
        if names < every or is_partial:
            yield Use("some_layers", where)
        if "q_proj" in names and "v_proj" not in names:
            yield Use("q_without_v", where)
        if names & {"k_proj", "v_proj"} and "q_proj" not in names:
            yield Use("kv_without_q", where)
        if "up_proj" in names and "gate_proj" not in names:
            yield Use("up_without_gate", where)


# --- Other tensors, and the files -------------------------------------------------------------------------------------

_PLAIN_TYPES: Final = frozenset({"F32", "F16", "BF16"})


def _of_tensors(adapter: Adapter, base: BaseModel | None) -> Iterator[Use]:
    for tensor in adapter.tensors:
        if tensor.tensor.dtype not in _PLAIN_TYPES:
            yield Use("other_type", tensor.key)
        if tensor.role.startswith("base_layer.") and tensor.module in (HEAD, EMBEDDING):
            yield Use("base_layer", tensor.key)
        elif tensor.role in ("bias", "base_layer.bias"):
            yield Use("trained_bias", tensor.key)
        elif tensor.role == "trainable_tokens_delta":
            yield Use("token_rows", tensor.key)
        elif tensor.role == "weight":
            yield from (Use(name, tensor.key) for name in _saved(tensor.module, base))
        yield from _of_rows(tensor.module, tensor.role, tensor.tensor.shape, tensor.key, base)


def _saved(module: str, base: BaseModel | None) -> tuple[str, ...]:
    if module in (HEAD, EMBEDDING):
        return tuple(f"saved_{'head' if module == HEAD else 'embedding'}_{tie}" for tie in _ties(base))
    return ("saved_norm",) if module.rpartition(".")[2].endswith(("norm", "layernorm")) else ("saved_linear",)


def _of_rows(module: str, role: str, shape: tuple[int, ...], key: str, base: BaseModel | None) -> Iterator[Use]:
    wanted = base.shape(module) if base and module in (HEAD, *EMBEDDINGS) else None
    axis = {"weight": 0, "base_layer.weight": 0, "lora_B": 0, "lora_embedding_A": 1}.get(role)
    if wanted and axis is not None and len(shape) == 2 and shape[axis] > wanted[0]:
        yield Use("new_tokens", key)


def _of_files(adapter: Adapter) -> Iterator[Use]:
    is_of_mlx = adapter.config is not None and adapter.config.mlx is not None
    yield Use("mlx_files" if is_of_mlx else "peft_files", "adapter_config.json")
    if adapter.renamed and not is_of_mlx:
        yield Use("renamed_keys", next(iter(adapter.renamed)))
    if adapter.index is not None:
        yield Use("sharded", "adapter_model.safetensors.index.json")
    if adapter.initial is not None:
        yield Use("initial_adapter", "--initial-adapter")
