"""The sizes that shapes and orders are made of, of either kind of base: what a Hugging Face config says of them."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

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
}


def config_dims(
    directory: Path, config: Mapping[str, object], architecture: Architecture, traits: Container[str] = ()
) -> Mapping[str, int]:
    """The dimensions of the whole model, or of its layers with some ``traits``. Raises ConverterError, status 2."""
    special = {
        dim: names for trait, dims in architecture.layers.dims.items() if trait in traits for dim, names in dims.items()
    }
    fields = {**_CONFIG_FIELDS, **architecture.config.dims, **special}

    def number(dim: str, otherwise: int | None = None) -> int:
        names = fields[dim]
        field = next((name for name in names if config.get(name) is not None), names[0])
        value = config.get(field)
        value = architecture.config.defaults.get(names[0], otherwise) if value is None else value
        if type(value) is not int or not 1 <= value <= most(dim):
            wanted = f"wanted a whole number from 1 to {most(dim)}"
            raise ConverterError(f"{directory / 'config.json'}: {field} is {value!r}, {wanted}")
        return value

    return dims_by(architecture, number, number("vocab"))


def config_layer_dims(
    directory: Path, config: Mapping[str, object], architecture: Architecture, traits: Sequence[Container[str]]
) -> tuple[Mapping[str, int], ...]:
    """The dimensions of each layer, where the table names fields for some of them."""
    if not architecture.layers.dims:
        return ()
    return tuple(config_dims(directory, config, architecture, of_layer) for of_layer in traits)


class Number(Protocol):
    """Looks up a dimension, or takes ``otherwise``."""

    def __call__(self, dim: str, otherwise: int | None = None) -> int: ...


def most(dim: str) -> int:
    """llama.cpp loads 512 layers and experts, and keeps every size as an int32."""
    return LAYERS if dim in ("n_layer", "n_expert") else (1 << 31) - 1


# What only some architectures' shapes or orders are made of.
_OF_SOME: Final[tuple[str, ...]] = ("n_ctx", "n_expert", "moe_ffn")


def dims_by(architecture: Architecture, number: Number, vocab: int) -> Mapping[str, int]:
    """Every dimension that the architecture needs, looked up by ``number``."""
    hidden, n_head = number("hidden"), number("n_head")
    n_head_kv, head_dim = number("n_head_kv", n_head), number("head_dim", hidden // n_head)
    ffn = number("ffn", 4 * hidden)  # GPT-2's n_inner says nothing
    dims = {"n_layer": number("n_layer"), "n_head": n_head, "n_head_kv": n_head_kv, "head_dim": head_dim}
    dims |= {"vocab": vocab, "hidden": hidden, "ffn": ffn}
    dims |= {dim: number(dim) for dim in _OF_SOME if dim in architecture.dims}
    return {**dims, **products(dims)}


def products(dims: Mapping[str, int]) -> Mapping[str, int]:
    """The dimensions that follow from others."""
    q, kv = dims["n_head"] * dims["head_dim"], dims["n_head_kv"] * dims["head_dim"]
    experts = {"moe_gate_up": 2 * dims["moe_ffn"]} if "moe_ffn" in dims else {}
    return {"gate_up": 2 * dims["ffn"], "q": q, "kv": kv, "qkv": q + 2 * kv, **experts}
