"""The sizes that a GGUF's metadata says, of the whole model or layer by layer."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from struct import unpack
from typing import Final

from converter.architectures import Architecture
from converter.derive.dimensions import Number, dims_by, least, most, products
from converter.errors import ConverterError
from converter.read.base_files import GgufFiles
from converter.read.files import read_bytes
from converter.read.gguf_header import INT32, UINT32, GgufArray
from converter.read.limits import LAYERS

# The keys of gguf's constants.py, without the architecture.
GGUF_KEYS: Final = {
    "n_layer": "block_count",
    "n_head": "attention.head_count",
    "n_head_kv": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "hidden": "embedding_length",
    "ffn": "feed_forward_length",
    "n_ctx": "context_length",
    "n_expert": "expert_count",
    "moe_ffn": "expert_feed_forward_length",
    "shortconv_k": "shortconv.l_cache",
    "ple": "embedding_length_per_layer_input",
    "altup": "altup.num_inputs",
    "n_shared": "expert_shared_count",
    "shexp_ffn": "expert_shared_feed_forward_length",
    "lin_n_key": "ssm.group_count",
    "lin_n_value": "ssm.time_step_rank",
    "lin_dim": "ssm.state_size",
    "lin_conv": "ssm.conv_kernel",
    "q_rank": "attention.q_lora_rank",
    "kv_rank": "attention.kv_lora_rank",
    "mla_k": "attention.key_length_mla",
    "mla_rope": "rope.dimension_count",
    "mla_v": "attention.value_length_mla",
    "ssm_inner": "ssm.inner_size",
    "ssm_rank": "ssm.time_step_rank",
    "ssm_heads": "ssm.time_step_rank",
    "ssm_groups": "ssm.group_count",
    "ssm_state": "ssm.state_size",
    "ssm_conv_k": "ssm.conv_kernel",
}


def gguf_dims(files: GgufFiles, architecture: Architecture) -> tuple[Mapping[str, int], tuple[Mapping[str, int], ...]]:
    """The dimensions of the whole model, and of each layer where the metadata has them layer by layer."""
    path, kv = files.shards[0].path, files.shards[0].kv
    arrays = {key: value for key in _dim_keys(architecture) if isinstance(value := kv.get(key), GgufArray)}
    values = {key: _whole_numbers(path, key, array) for key, array in arrays.items()}
    largest = {key: max(numbers, default=0) for key, numbers in values.items()}
    dims = dims_by(architecture, _number(path, architecture, {**kv, **largest}), _n_vocab(files))
    n_layer = dims["n_layer"] - _n_predicting(architecture, kv)
    if n_layer < 1 or any(len(numbers) < n_layer for numbers in values.values()):
        raise ConverterError(f"{path}: has metadata of fewer layers than its {dims['n_layer']}")
    dims = {**dims, "n_layer": n_layer}
    by_layer = ({key: numbers[i] for key, numbers in values.items()} for i in range(n_layer if values else 0))
    return dims, tuple({**dims, **_of_layer(architecture, own, dims)} for own in by_layer)


def _n_vocab(files: GgufFiles) -> int:
    tensors = (tensor for shard in files.shards for tensor in shard.tensors)
    embedding = next((tensor for tensor in tensors if tensor.name == "token_embd.weight"), None)
    if embedding is None or len(embedding.shape) != 2:
        raise ConverterError(f"{files.path}: has no matrix token_embd.weight; it is not a text model's GGUF")
    return embedding.shape[0]


def _n_predicting(architecture: Architecture, kv: Mapping[str, object]) -> int:
    """How many layers at the end predict tokens behind the next one: no LoRA is on them, and no graph runs them."""
    n = kv.get(f"{architecture.name}.nextn_predict_layers", 0)
    return n if type(n) is int and n > 0 else 0


def _dim_keys(architecture: Architecture) -> Iterator[str]:
    return (f"{architecture.name}.{key}" for key in GGUF_KEYS.values())


def _of_layer(architecture: Architecture, values: Mapping[str, int], dims: Mapping[str, int]) -> Mapping[str, int]:
    own = {dim: values[key] for dim, key in zip(GGUF_KEYS, _dim_keys(architecture), strict=True) if key in values}
    return {**own, **products({**dims, **own})}


def _number(path: Path, architecture: Architecture, kv: Mapping[str, object]) -> Number:
    def number(dim: str, otherwise: int | None = None) -> int:
        if dim == "mla_nope":  # what of a head's key doesn't rotate
            return number("mla_k") - number("mla_rope")
        if dim in architecture.graph.sizes:
            return architecture.graph.sizes[dim]
        otherwise = 0 if dim == "q_rank" else otherwise
        key = f"{architecture.name}.{GGUF_KEYS[dim]}"
        value = kv.get(key, 0 if otherwise is None and least(dim) == 0 else otherwise)
        if type(value) is not int or not least(dim) <= value <= most(dim):
            wanted = f"wanted one whole number from {least(dim)} to {most(dim)}"
            raise ConverterError(f"{path}: {key} is {value!r}, {wanted}")
        return value

    return number


def _whole_numbers(path: Path, key: str, array: GgufArray) -> tuple[int, ...]:
    """The values of an array of whole numbers. Raises ConverterError for one of another type, or too long a one."""
    form = {INT32: "i", UINT32: "I"}.get(array.element_type)
    if form is None or array.n > LAYERS:
        raise ConverterError(f"{path}: {key} is no array of at most {LAYERS} whole numbers")
    values = unpack(f"<{array.n}{form}", read_bytes(path, array.offset, array.nbytes))
    if not all(0 <= value <= most("hidden") for value in values):
        raise ConverterError(f"{path}: {key} has a value that is no size")
    return values
