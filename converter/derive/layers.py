"""The traits of each layer of a Hugging Face model, by which tables say what only some layers have.

A trait is the layer's kind, as config.json or the config class calls it, or one of TRAITS.
"""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from converter.architectures import Architecture

Config = Mapping[str, object]
Traits = frozenset[str]


def layer_traits(architecture: Architecture, config: Config, n_layer: int) -> tuple[Traits, ...]:
    """The traits of each layer; none where the table makes no difference between layers."""
    layers = architecture.layers
    if not (layers.kinds or layers.traits):
        return ()
    kinds = _kinds(architecture, config, n_layer)
    every = (frozenset({kind}) for kind in kinds)
    return tuple(traits | _others(architecture, config, traits, i, n_layer) for i, traits in enumerate(every))


def _kinds(architecture: Architecture, config: Config, n_layer: int) -> list[str]:
    stated, attending = config.get("layer_types"), config.get("full_attn_idxs")
    if isinstance(stated, list) and len(stated) >= n_layer:
        return [_RESPELLED.get(str(kind), str(kind)) for kind in stated[:n_layer]]
    if isinstance(attending, list):  # LFM2's
        return ["full_attention" if i in attending else "conv" for i in range(n_layer)]
    cycle = architecture.layers.kinds or ("",)
    first = -n_layer if architecture.layers.to_the_last else 0
    return [cycle[(first + i) % len(cycle)] for i in range(n_layer)]


# Kinds as published configs of Granite 4 spell them, which transformers 5 respells.
_RESPELLED: Final[Mapping[str, str]] = {"mamba": "linear_attention", "attention": "full_attention"}


def with_layer_types(config: Config) -> dict[str, object]:
    """The config with Nemotron-H's kinds of layers, a list or a pattern of letters, as the others have them.

    Its number of layers is how many are listed (NemotronHConfig).
    """
    stated = config.get("layers_block_type") or config.get("hybrid_override_pattern")
    if not isinstance(stated, list | str):
        return dict(config)
    kinds = [_LETTERS.get(str(kind), str(kind)) for kind in stated]
    return {**config, "layer_types": kinds, "num_hidden_layers": len(kinds)}


_LETTERS: Final[Mapping[str, str]] = {"M": "mamba", "E": "moe", "*": "attention", "-": "mlp"}


def has_layers_of_experts(config: Config) -> bool:
    """Whether a layer is nothing but experts."""
    stated = config.get("layer_types")
    return isinstance(stated, list) and "moe" in stated


def all_attend(config: Config) -> bool:
    """Whether the config says of each layer that it attends to everything, of a model whose layers may do otherwise."""
    stated = config.get("layer_types")
    return isinstance(stated, list) and {_RESPELLED.get(str(kind), kind) for kind in stated} == {"full_attention"}


class Layer(NamedTuple):
    """A layer as traits see it: the config's whole numbers, its kind, its number, and how many are left with it."""

    number: Callable[[str], int]
    kinds: Traits
    i: int
    n_left: int


def _others(architecture: Architecture, config: Config, kinds: Traits, i: int, n_layer: int) -> Traits:
    def number(field: str) -> int:
        value = architecture.setting(config, field)
        return value if isinstance(value, int) else 0

    layer = Layer(number, kinds, i, n_layer - i)
    found = {name for name in architecture.layers.traits if TRAITS[name](layer)}
    stated = config.get("mlp_layer_types")
    if isinstance(stated, list) and len(stated) >= n_layer and "sparse" in architecture.layers.traits:
        found = (found - {"dense", "sparse"}) | {str(stated[i])}
    return frozenset(found)


TRAITS: Final[Mapping[str, Callable[[Layer], bool]]] = {
    # Gemma 4: layers may have embeddings of their own; the last ones have the keys and values of earlier ones, and may
    # be twice as wide; of those that attend to everything the values may be the keys.
    "per_layer_input": lambda it: it.number("hidden_size_per_layer_input") > 0,
    "shared_kv": lambda it: it.n_left <= it.number("num_kv_shared_layers"),
    "double_wide": lambda it: bool(it.number("use_double_wide_mlp")) and it.n_left <= it.number("num_kv_shared_layers"),
    "values_are_keys": lambda it: bool(it.number("attention_k_eq_v")) and "full_attention" in it.kinds,
    # Granite 4: one feed-forward part, or experts with one that is always asked.
    "experts": lambda it: it.number("num_local_experts") > 0,
    "no_experts": lambda it: it.number("num_local_experts") == 0,
    "moe": lambda it: bool(it.number("enable_moe_block")),
    # DeepSeek's small models don't take queries apart.
    "whole_queries": lambda it: not it.number("q_lora_rank"),
    # Jamba: every so many layers one attends, the others are Mamba, and every so many have experts.
    "attends": lambda it: _is_every(it, "attn_layer_period", "attn_layer_offset"),
    "recurs": lambda it: not _is_every(it, "attn_layer_period", "attn_layer_offset"),
    "mixes": lambda it: it.number("num_experts") > 1 and _is_every(it, "expert_layer_period", "expert_layer_offset"),
    "mixes_not": lambda it: (
        it.number("num_experts") < 2 or not _is_every(it, "expert_layer_period", "expert_layer_offset")
    ),
    # Falcon: all queries have one key.
    "multi_query": lambda it: bool(it.number("multi_query")) and not it.number("new_decoder_architecture"),
    # What attends has a norm of its own, but in Falcon 2.
    "two_norms": lambda it: bool(it.number("new_decoder_architecture")) and it.number("num_ln_in_parallel_attn") != 1,
    # The first layers have no experts.
    "dense": lambda it: it.i < _n_dense(it),
    "sparse": lambda it: it.i >= _n_dense(it),
    # Llama 4: every so many layers one has experts.
    "between": lambda it: not _is_interleaved(it),
    "interleaved": lambda it: _is_interleaved(it),  # noqa: PLW0108  which is defined below
}


def _is_every(it: Layer, period: str, offset: str) -> bool:
    n = it.number(period)
    return n > 0 and it.i % n == it.number(offset)


def _is_interleaved(it: Layer) -> bool:
    step = it.number("interleave_moe_layer_step")
    return step > 0 and (it.i + 1) % step == 0


def _n_dense(it: Layer) -> int:
    return max(map(it.number, ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")))
