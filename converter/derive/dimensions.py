"""The sizes that shapes and orders are made of, of either kind of base: what a Hugging Face config says of them."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

from converter.architectures import Architecture
from converter.errors import ConverterError
from converter.read.limits import LAYERS

# Where a config keeps what shapes are made of, unless the architecture has another name for it.
_CONFIG_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "n_layer": ("num_hidden_layers",),
    "n_head": ("num_attention_heads",),
    "n_head_kv": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "vocab": ("vocab_size",),
    "hidden": ("hidden_size",),
    "ffn": ("intermediate_size",),
    "n_ctx": ("max_position_embeddings",),
    "n_expert": ("num_experts",),
    "moe_ffn": ("moe_intermediate_size",),
    "shortconv_k": ("conv_L_cache",),
    "ple": ("hidden_size_per_layer_input",),
    "altup": ("altup_num_inputs",),
    "laurel": ("laurel_rank",),
    "n_shared": ("n_shared_experts",),
    "shexp_ffn": ("shared_expert_intermediate_size",),
    "lin_n_key": ("linear_num_key_heads",),
    "lin_n_value": ("linear_num_value_heads",),
    "lin_dim": ("linear_key_head_dim",),
    "lin_conv": ("linear_conv_kernel_dim",),
    "q_rank": ("q_lora_rank",),
    "kv_rank": ("kv_lora_rank",),
    "mla_nope": ("qk_nope_head_dim",),
    "mla_rope": ("qk_rope_head_dim",),
    "mla_v": ("v_head_dim",),
    "ssm_inner": ("mamba_d_head",),  # times the heads
    "ssm_rank": ("mamba_dt_rank",),
    "ssm_heads": ("mamba_n_heads",),
    "ssm_groups": ("mamba_n_groups",),
    "ssm_state": ("mamba_d_state",),
    "ssm_conv_k": ("mamba_d_conv",),
}
# What only some models of an architecture have: Gemma 4's embeddings of layers, experts.
_MAY_BE_0: Final = frozenset({"ple", "n_expert", "moe_ffn", "n_shared", "shexp_ffn", "q_rank"})


def config_dims(
    directory: Path, config: Mapping[str, object], architecture: Architecture, traits: Container[str] = ()
) -> Mapping[str, int]:
    """The dimensions of the whole model, or of its layers with some ``traits``. Raises ConverterError, status 2."""
    fields = {**_CONFIG_FIELDS, **architecture.config.dims, **_of_traits(architecture.layers.dims, traits)}
    factors = _of_traits(architecture.layers.factors, traits)

    def number(dim: str, otherwise: int | None = None) -> int:
        if dim in architecture.graph.sizes:
            return architecture.graph.sizes[dim]
        names = fields[dim]
        if isinstance(names, int):
            return names
        if dim == "ssm_inner" and type(head := architecture.setting(config, names[0])) is not int:
            return _widened(architecture, config, number("hidden"), head)
        field = next((name for name in names if config.get(name) is not None), names[0])
        value = config.get(field)
        value = architecture.config.defaults.get(names[0], otherwise) if value is None else value
        if dim == "ssm_rank" and value == "auto":  # as in Mamba's and Jamba's configs
            value = -(-number("hidden") // 16)
        value = 0 if value is None and dim in _MAY_BE_0 else _of_all_layers(value)
        if type(value) is not int or not least(dim) <= value <= most(dim):
            wanted = f"wanted a whole number from {least(dim)} to {most(dim)}"
            raise ConverterError(f"{directory / 'config.json'}: {field} is {value!r}, {wanted}")
        if dim == "ssm_inner":
            return value * number("ssm_heads")
        return (_adjusted(architecture, config, value) if dim == "ffn" else value) * factors.get(dim, 1)

    return dims_by(architecture, number, number("vocab"))


def _of_all_layers(value: object) -> object:
    """A size that is listed for each layer (Gemma 3n's intermediate_size), where all have the same."""
    return value[0] if isinstance(value, list) and value and all(it == value[0] for it in value) else value


def _widened(architecture: Architecture, config: Mapping[str, object], hidden: int, head: object) -> int:
    """The inner width of a Mamba layer whose config leaves the size of its heads open; Falcon-H1's states it."""
    if type(inner := architecture.setting(config, "mamba_d_ssm")) is int and inner > 0:
        return inner
    expand = architecture.setting(config, "mamba_expand")
    if head not in ("auto", None) or type(expand) is not int or expand < 1:
        raise ConverterError(
            f"the base has heads of Mamba of {head!r} and mamba_expand {expand!r}, wanted whole numbers"
        )
    return expand * hidden


T = TypeVar("T")


def _of_traits(by_trait: Mapping[str, Mapping[str, T]], traits: Container[str]) -> Mapping[str, T]:
    return {key: value for trait, values in by_trait.items() if trait in traits for key, value in values.items()}


def _adjusted(architecture: Architecture, config: Mapping[str, object], ffn: int) -> int:
    """A feed-forward part's width by LFM2's rule (Lfm2MLP in transformers): two thirds, rounded up to a multiple."""
    if not architecture.config.adjusts_ffn or not architecture.setting(config, "block_auto_adjust_ff_dim"):
        return ffn
    ffn = 2 * ffn // 3
    multiplier = architecture.setting(config, "block_ffn_dim_multiplier")
    multiple = architecture.setting(config, "block_multiple_of")
    if not isinstance(multiplier, int | float) or type(multiple) is not int or not 0 < multiplier < 16 or multiple < 1:
        return ffn
    return -(-int(multiplier * ffn) // multiple) * multiple


def config_layer_dims(
    directory: Path, config: Mapping[str, object], architecture: Architecture, traits: Sequence[Container[str]]
) -> tuple[Mapping[str, int], ...]:
    """The dimensions of each layer, where the table names fields for some of them.

    transformers 5 writes the fields of a layer of its own as per_layer_config (Gemma 4).
    """
    if not architecture.layers.dims:
        return ()
    stated = config.get("per_layer_config")
    own = {int(i): fields for i, fields in stated.items() if i.isdigit()} if isinstance(stated, dict) else {}
    return tuple(
        config_dims(directory, {**config, **_own_fields(architecture, own.get(i), of_layer)}, architecture, of_layer)
        for i, of_layer in enumerate(traits)
    )


def _own_fields(architecture: Architecture, own: object, traits: Container[str]) -> Mapping[str, object]:
    """A layer's own fields, under the names that the table looks for in layers of its traits."""
    if not isinstance(own, dict):
        return {}
    stated = _of_traits(architecture.layers.dims, traits)
    names = {_CONFIG_FIELDS[dim][0]: fields[0] for dim, fields in stated.items() if not isinstance(fields, int)}
    return own | {names[field]: value for field, value in own.items() if field in names}


class Number(Protocol):
    """Looks up a dimension, or takes ``otherwise``."""

    def __call__(self, dim: str, otherwise: int | None = None) -> int: ...


def least(dim: str) -> int:
    """What a dimension has to be at least."""
    return 0 if dim in _MAY_BE_0 else 1


def most(dim: str) -> int:
    """llama.cpp loads 512 layers and experts, and keeps every size as an int32."""
    return LAYERS if dim in ("n_layer", "n_expert") else (1 << 31) - 1


# What only some architectures' shapes or orders are made of.
_OF_SOME: Final = (
    "n_ctx",
    "n_expert",
    "moe_ffn",
    "shortconv_k",
    "ple",
    "altup",
    "laurel",
    "n_shared",
    "shexp_ffn",
    "lin_n_key",
    "lin_n_value",
    "lin_dim",
    "lin_conv",
    "q_rank",
    "kv_rank",
    "mla_nope",
    "mla_rope",
    "mla_v",
    "ssm_inner",
    "ssm_rank",
    "ssm_heads",
    "ssm_groups",
    "ssm_state",
    "ssm_conv_k",
)


# What is looked up for the sake of a product.
_FACTORS: Final[Mapping[str, frozenset[str]]] = {
    "shared_ffn": frozenset({"n_shared"}),
    "kv_b": frozenset({"mla_rope", "mla_v"}),
    "shexp_gate_up": frozenset({"shexp_ffn"}),
    "ssm1_in": frozenset({"ssm_inner"}),
    "ssm1_x": frozenset({"ssm_rank", "ssm_state"}),
    "ssm_in": frozenset({"ssm_inner", "ssm_heads", "ssm_groups", "ssm_state"}),
    "ssm_conv": frozenset({"ssm_inner", "ssm_groups", "ssm_state"}),
}


def dims_by(architecture: Architecture, number: Number, vocab: int) -> Mapping[str, int]:
    """Every dimension that the architecture needs, looked up by ``number``."""
    hidden, n_head = number("hidden"), number("n_head")
    n_head_kv, head_dim = number("n_head_kv", n_head), number("head_dim", hidden // n_head)
    ffn = number("ffn", 4 * hidden)  # GPT-2's n_inner says nothing
    dims = {"n_layer": number("n_layer"), "n_head": n_head, "n_head_kv": n_head_kv, "head_dim": head_dim}
    dims |= {"vocab": vocab, "hidden": hidden, "ffn": ffn}
    named = set(architecture.dims)
    for product, factors in _FACTORS.items():
        named |= factors if product in named else set()
    dims |= {dim: number(dim) for dim in _OF_SOME if dim in named}
    return {**dims, **products(dims)}


def products(dims: Mapping[str, int]) -> Mapping[str, int]:
    """The dimensions that follow from others."""
    q, kv = dims["n_head"] * dims["head_dim"], dims["n_head_kv"] * dims["head_dim"]
    some = {"moe_gate_up": 2 * dims["moe_ffn"]} if "moe_ffn" in dims else {}
    some |= {"ple_all": dims["n_layer"] * dims["ple"]} if "ple" in dims else {}
    some |= {"altup_pairs": dims["altup"] ** 2} if "altup" in dims else {}
    some |= {"shared_ffn": dims["n_shared"] * dims["moe_ffn"]} if "n_shared" in dims else {}
    some |= {"shexp_gate_up": 2 * dims["shexp_ffn"]} if "shexp_ffn" in dims else {}
    some |= _linear_attention(dims) if "lin_dim" in dims else {}
    some |= _latent_attention(dims) if "mla_v" in dims else {}
    some |= _mamba_1(dims) if "ssm_rank" in dims else _mamba(dims) if "ssm_inner" in dims else {}
    # Of Falcon's: queries with one key in common, and their key and value behind them.
    group = dims["n_head"] // dims["n_head_kv"] if dims["n_head_kv"] else 0
    some |= {"q_group": group, "q_last": group + 1, "q_parts": group + 2}
    hidden = dims["hidden"]
    return {
        "gate_up": 2 * dims["ffn"],
        "q": q,
        "kv": kv,
        "qkv": q + 2 * kv,
        "hidden_x3": 3 * hidden,
        "one": 1,
        "q_x2": 2 * q,
        **some,
    }


def _linear_attention(dims: Mapping[str, int]) -> Mapping[str, int]:
    """Sizes of a gated delta net, whose value heads stand in groups, one for each key head."""
    n_key, n_value, dim = dims["lin_n_key"], dims["lin_n_value"], dims["lin_dim"]
    if n_value % n_key:
        raise ConverterError(f"the base has {n_value} heads of values for {n_key} of keys, wanted a multiple")
    qk, v, group = 2 * n_key * dim, n_value * dim, n_value // n_key
    # Of a key head, in its own size: q, k, its group's values and their gates z (Qwen3-Next).
    parts = {"lin_parts": 2 + 2 * group, "lin_z": 2 + group, "lin_qkvz": qk + 2 * v, "lin_ba": 2 * n_value}
    return {"lin_qk": qk, "lin_v": v, "lin_qkv": qk + v, "lin_group": group, **parts}


def _latent_attention(dims: Mapping[str, int]) -> Mapping[str, int]:
    """Sizes of DeepSeek's attention: of a head's key a part rotates, which all heads share."""
    n, nope, rope, v = dims["n_head"], dims["mla_nope"], dims["mla_rope"], dims["mla_v"]
    queries = {"mla_q": n * (nope + rope), "mla_o": n * v}
    return {**queries, "mla_kv": nope + v, "kv_b": n * (nope + v), "kv_a": dims["kv_rank"] + rope}


def _mamba_1(dims: Mapping[str, int]) -> Mapping[str, int]:
    """Sizes of a layer of the first Mamba: values and gates, and what steps, B and C are made of."""
    return {"ssm1_in": 2 * dims["ssm_inner"], "ssm1_x": dims["ssm_rank"] + 2 * dims["ssm_state"]}


def _mamba(dims: Mapping[str, int]) -> Mapping[str, int]:
    """Sizes of a Mamba 2 layer: what its convolution is over, and all that its one projection makes."""
    if dims["ssm_inner"] % dims["ssm_groups"]:
        raise ConverterError(f"the base has {dims['ssm_groups']} groups in {dims['ssm_inner']}, wanted a divisor")
    conv = dims["ssm_inner"] + 2 * dims["ssm_groups"] * dims["ssm_state"]
    in_group = dims["ssm_groups"] * dims["ssm_state"]
    return {"ssm_conv": conv, "ssm_in": dims["ssm_inner"] + conv + dims["ssm_heads"], "ssm_bc": in_group}
