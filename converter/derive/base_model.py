"""A base model as data, whichever kind of files it lies in: architecture, tie state, module shapes, its tensors."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol

from converter.architectures import Architecture, Place, architecture_named, architecture_of_model_type, numbers_in
from converter.derive.model_names import cached_repository, public_name
from converter.derive.module_paths import EMBEDDING, HEAD, normal_module
from converter.errors import ConverterError
from converter.read.base_files import GgufFiles, HuggingfaceFiles, read_base_files
from converter.read.limits import LAYERS
from converter.read.safetensors_header import SafetensorsHeader
from converter.read.stored import StoredTensor

if TYPE_CHECKING:
    from converter.read.gguf_header import GgufHeader, GgufTensor


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The model an adapter belongs to.

    ``tensors`` maps Hugging Face names (``model.layers.0.mlp.up_proj.weight``) to where they lie; a GGUF's rows are in
    GGUF's order. Empty for a directory with only config.json; where ``quantization`` names a quantiser of PyTorch's,
    only what it left alone is there. ``dims`` are the sizes of shapes and orders. ``config`` is that of a Hugging Face
    directory, with the fields of its text model.
    """

    path: Path
    format: Literal["gguf", "huggingface"]
    model_type: str
    architecture: Architecture | None
    dims: Mapping[str, int]
    tied: bool
    tensors: Mapping[str, StoredTensor]
    shards: "tuple[GgufHeader, ...]" = ()
    quantization: str | None = None
    name: str | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    original: "BaseModel | None" = None  # the base as it lies there, where an adapter replicated its layers

    @property
    def label(self) -> str:
        """How messages call the base: the last part of its path, or the repository that the hub's cache has there."""
        return public_name(self.path)

    def shape(self, module: str) -> tuple[int, ...] | None:
        """The shape of PEFT's delta on a module's weight, or None where the base has no such module.

        (out, in) for a linear, (n_expert, out, in) for fused experts, (n,) for a norm.
        """
        place, stored = self.place(module), self.weight(module)
        if stored is not None:
            transposed = place is not None and place.transposed and self.format == "huggingface"
            return stored.shape[::-1] if transposed else stored.shape
        # A checkpoint keeps experts fused or one by one, a GGUF in a way of its own: neither is looked for.
        says_all = self.tensors and not self.quantization
        if place is None or (says_all and ".experts." not in module):
            return None
        return tuple(self.dims[dim] for dim in place.shape)

    def places(self, module: str) -> tuple[Place, ...]:
        """The module's GGUF places, none where the architecture or this base has no such module."""
        if self.architecture is None:
            return ()
        counts = (self.dims["n_layer"], self.dims.get("n_expert", 0))
        within = all(number < count for number, count in zip(numbers_in(module), counts, strict=False))
        return self.architecture.places(module) if within else ()

    def place(self, module: str) -> Place | None:
        """The first of the module's places, or None."""
        return next(iter(self.places(module)), None)

    def weight(self, module: str) -> StoredTensor | None:
        """Where the module's weight lies; a tied head's is the embedding's."""
        return self.tensors.get(f"{self._stored_module(module)}.weight")

    def _stored_module(self, module: str) -> str:
        return EMBEDDING if module == HEAD and self.tied else module

    @property
    def is_convertible_checkpoint(self) -> bool:
        """Whether this is a Hugging Face directory that a GGUF may be made of: other rules refuse the other ones."""
        return self.format == "huggingface" and self.architecture is not None and not self.quantization

    @property
    def is_quantized(self) -> bool:
        """Whether a GGUF base holds block-quantised tensors."""
        return any(
            not tensor.type.is_float for shard in self.shards for tensor in shard.tensors if len(tensor.shape) > 1
        )


def read_base_model(path: Path) -> BaseModel:
    """Read the base at ``path``, a directory or a GGUF file.

    Raises ConverterError, status 2: there is no such base, or it is of a kind that is not read.
    """
    match read_base_files(path):
        case HuggingfaceFiles() as files:
            return _of_huggingface(files)
        case GgufFiles() as files:
            return _of_gguf(files)


# --- Hugging Face ---------------------------------------------------------------------------------------------------


def _of_huggingface(files: HuggingfaceFiles) -> BaseModel:
    config = files.config
    text = config.get("text_config")
    text = text if isinstance(text, dict) else config
    model_type = str(text.get("model_type", config.get("model_type", "")))
    if model_type in _BIDIRECTIONAL and text.get("use_bidirectional_attention") is True:
        model_type = _BIDIRECTIONAL[model_type]
    architecture = architecture_of_model_type(model_type)
    quantization = _quantization(config)
    tensors = _safetensors_tensors(files.headers)
    tensors = dict(_left_alone(tensors)) if quantization else tensors
    return BaseModel(
        path=files.directory,
        format="huggingface",
        model_type=model_type,
        architecture=architecture,
        dims=_config_dims(files.directory, text, architecture) if architecture else {},
        tied=_says_tied(config, text, architecture) and not _has_own_head(tensors),
        tensors=tensors,
        quantization=quantization,
        name=str(config.get("_name_or_path") or "") or cached_repository(files.directory),
        config={**config, **text},
    )


# What llama.cpp calls the graph of a model type where each token attends to all: EmbeddingGemma (conversion/gemma.py).
_BIDIRECTIONAL: Final = {"gemma3_text": "gemma-embedding"}


def _says_tied(config: Mapping[str, object], text: Mapping[str, object], architecture: Architecture | None) -> bool:
    stated = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    return bool(architecture and architecture.tied_by_default) if stated is None else bool(stated)


def _has_own_head(tensors: Mapping[str, StoredTensor]) -> bool:
    """Whether the checkpoint has a head that is another tensor than its embedding, whatever its config says.

    A merge of saved ends leaves such a one. transformers 5 loads both, and llama.cpp's converter writes both.
    """
    head, embedding = tensors.get(f"{HEAD}.weight"), tensors.get(f"{EMBEDDING}.weight")
    return head is not None and embedding is not None and not head.holds_the_bytes_of(embedding)


def _quantization(config: Mapping[str, object]) -> str | None:
    settings = config.get("quantization_config")
    if isinstance(config.get("quantization"), dict):
        return "MLX"  # which writes its settings under both names
    return str(settings.get("quant_method", "unknown")) if isinstance(settings, dict) else None


def _left_alone(tensors: Mapping[str, StoredTensor]) -> Iterator[tuple[str, StoredTensor]]:
    """What a quantiser didn't pack: whole numbers, FP8 and its scales are no weights by themselves."""
    for name, stored in tensors.items():
        if stored.dtype in _PLAIN and name.endswith((".weight", ".bias")):
            yield name, stored


_PLAIN: Final = frozenset({"F64", "F32", "F16", "BF16"})

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


def _config_dims(directory: Path, config: Mapping[str, object], architecture: Architecture) -> Mapping[str, int]:
    def number(dim: str, otherwise: int | None = None) -> int:
        names = architecture.config_fields.get(dim, _CONFIG_FIELDS[dim])
        field = next((name for name in names if config.get(name) is not None), names[0])
        value = config.get(field)
        value = architecture.config_defaults.get(names[0], otherwise) if value is None else value
        if type(value) is not int or not 1 <= value <= _most(dim):
            wanted = f"wanted a whole number from 1 to {_most(dim)}"
            raise ConverterError(f"{directory / 'config.json'}: {field} is {value!r}, {wanted}")
        return value

    return _dims(architecture, number, number("vocab"))


def _safetensors_tensors(headers: Iterable[SafetensorsHeader]) -> Mapping[str, StoredTensor]:
    return {
        normal_module(info.name): StoredTensor(
            header.path, header.data_offset + info.begin, info.end - info.begin, info.shape, info.dtype
        )
        for header in headers
        for info in header.entries
    }


# --- GGUF -----------------------------------------------------------------------------------------------------------


def _of_gguf(files: GgufFiles) -> BaseModel:
    path, shards = files.path, files.shards
    kv = shards[0].kv
    _refuse_other_kinds(path, kv)
    model_type = str(kv.get("general.architecture", ""))
    architecture = architecture_named(model_type)
    by_name = {tensor.name: (tensor, shard.path) for shard in shards for tensor in shard.tensors}
    return BaseModel(
        path=path,
        format="gguf",
        model_type=model_type,
        architecture=architecture,
        dims=_gguf_dims(path, kv, architecture, by_name) if architecture else {},
        tied="output.weight" not in by_name,
        tensors=_gguf_tensors(architecture, by_name) if architecture else {},
        shards=shards,
        name=str(kv.get("general.name", "")) or None,
    )


def _refuse_other_kinds(path: Path, kv: Mapping[str, object]) -> None:
    kind = kv.get("general.type", "model")
    if kind != "model":
        raise ConverterError(f"{path}: is a GGUF of general.type {kind!r}, wanted a model")
    if kv.get("general.architecture") == "clip":
        raise ConverterError(f"{path}: is a vision projector (mmproj), wanted the text model's GGUF")


def _gguf_tensors(
    architecture: Architecture, by_name: "Mapping[str, tuple[GgufTensor, Path]]"
) -> Mapping[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for name, (tensor, path) in by_name.items():
        stem, _, parameter = name.rpartition(".")
        place = architecture.source(stem)
        if place:
            stored = StoredTensor(path, tensor.offset, tensor.nbytes, tensor.shape, tensor.type.name)
            tensors[f"{place.module}.{parameter}"] = stored
    return tensors


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
}


def _gguf_dims(
    path: Path, kv: Mapping[str, object], architecture: Architecture, by_name: "Mapping[str, tuple[GgufTensor, Path]]"
) -> Mapping[str, int]:
    def number(dim: str, otherwise: int | None = None) -> int:
        key = f"{architecture.name}.{GGUF_KEYS[dim]}"
        value = kv.get(key, otherwise)
        if type(value) is not int or not 1 <= value <= _most(dim):
            raise ConverterError(f"{path}: {key} is {value!r}, wanted one whole number from 1 to {_most(dim)}")
        return value

    embedding = by_name.get("token_embd.weight")
    if embedding is None or len(embedding[0].shape) != 2:
        raise ConverterError(f"{path}: has no matrix token_embd.weight; it is not a text model's GGUF")
    return _dims(architecture, number, embedding[0].shape[0])


# --- Both -----------------------------------------------------------------------------------------------------------


class _Number(Protocol):
    """Looks up a dimension, or takes ``otherwise``."""

    def __call__(self, dim: str, otherwise: int | None = None) -> int: ...


def _most(dim: str) -> int:
    """llama.cpp loads 512 layers and experts, and keeps every size as an int32."""
    return LAYERS if dim in ("n_layer", "n_expert") else (1 << 31) - 1


def _dims(architecture: Architecture, number: _Number, vocab: int) -> Mapping[str, int]:
    hidden, n_head = number("hidden"), number("n_head")
    n_head_kv, head_dim = number("n_head_kv", n_head), number("head_dim", hidden // n_head)
    ffn = number("ffn", 4 * hidden)  # GPT-2's n_inner says nothing
    q, kv = n_head * head_dim, n_head_kv * head_dim
    some = {dim: number(dim) for dim in ("n_ctx", "n_expert", "moe_ffn") if dim in architecture.dims}
    return {
        "n_layer": number("n_layer"),
        "n_head": n_head,
        "n_head_kv": n_head_kv,
        "head_dim": head_dim,
        "vocab": vocab,
        "hidden": hidden,
        "ffn": ffn,
        "gate_up": 2 * ffn,
        "q": q,
        "kv": kv,
        "qkv": q + 2 * kv,
        **some,
        **({"moe_gate_up": 2 * some["moe_ffn"]} if "moe_ffn" in some else {}),
    }
