"""A base model as data, whichever kind of files it lies in: architecture, tie state, module shapes, its tensors."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from sys import float_info
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from converter.architectures import (
    Architecture,
    Place,
    architecture_all_attention,
    architecture_named,
    architecture_of_model_type,
    architecture_with_experts,
    numbers_in,
)
from converter.derive.dimensions import config_dims, config_layer_dims
from converter.derive.layers import all_attend, has_layers_of_experts, layer_traits, with_layer_types
from converter.derive.model_names import cached_repository, public_name
from converter.derive.module_paths import EMBEDDING, HEAD, normal_module
from converter.errors import ConverterError
from converter.orders import Orders
from converter.read.base_files import GgufFiles, HuggingfaceFiles, read_base_files
from converter.read.safetensors_header import SafetensorsHeader, TensorInfo
from converter.read.stored import StoredTensor
from converter.read.tokenizer import Tokenizer, read_tokenizer

if TYPE_CHECKING:
    from converter.derive.fused_gguf import Fused
    from converter.derive.match import Match
    from converter.read.gguf_header import GgufHeader, GgufTensor
    from converter.read.hub_address import Address, OnHub


class Section(NamedTuple):
    """Some rows of a matrix, and the numbers that they are multiplied by one after the other."""

    n_rows: int
    factors: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BaseModel:
    """The model an adapter belongs to.

    ``tensors`` maps Hugging Face names (``model.layers.0.mlp.up_proj.weight``) to where they lie; a GGUF's rows are in
    GGUF's order. Empty for a directory with only config.json; where ``quantization`` names a quantiser of PyTorch's,
    only what it left alone is there. ``dims`` are the sizes of shapes and orders, ``layer_dims`` those of each layer
    where layers differ. ``config`` is that of a Hugging Face directory, with the fields of its text model, and
    ``layer_traits`` are what it says of each layer. ``stems`` are a GGUF's weights; ``fused`` are tensors of the file
    whose parts stand for them in ``shards``, and everywhere else. ``checkpoint`` is what a GGUF
    without a table was made from, and ``match`` what comparing the two found of an adapter's modules.
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
    layer_dims: tuple[Mapping[str, int], ...] = ()
    layer_traits: tuple[frozenset[str], ...] = ()
    stems: frozenset[str] = frozenset()
    named_by_adapter: bool = False  # and not by the user
    original: "BaseModel | None" = None  # the base as it lies there, where an adapter replicated its layers
    on_hub: "OnHub | None" = None  # whose directory holds headers and small files, and no numbers
    norms_digest: str | None = None  # the fingerprint, of one whose norms aren't here
    fused: "Fused" = field(default_factory=dict)
    checkpoint: "BaseModel | None" = None
    match: "Match | None" = None
    # What is found once for all rules, and for every adapter on this base.
    _matrices: dict[bool, tuple[str, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _shapes: dict[str, tuple[int, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _found: dict[str, tuple[Place, ...]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _tokenizers: list[Tokenizer | None] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def label(self) -> str:
        """How messages call the base: the last part of its path, or the repository that the hub's cache has there."""
        return self.on_hub.address.label if self.on_hub else public_name(self.path)

    @property
    def shown_path(self) -> "Path | Address":
        """Where it lies, for people: the directory or file, or its address on a hub."""
        return self.on_hub.address if self.on_hub else self.path

    @property
    def has_numbers(self) -> bool:
        """Whether the weights can be read."""
        return bool(self.tensors) and self.on_hub is None

    def require_numbers(self) -> None:
        """Raise ConverterError where the base's numbers aren't here."""
        if self.on_hub:
            raise ConverterError(
                f"{self.shown_path}: its weights were not fetched; download it, and give the directory"
            )

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer of a Hugging Face directory. Raises ConverterError where the system doesn't let us read it."""
        if not self._tokenizers:
            self._tokenizers.append(read_tokenizer(self.path) if self.format == "huggingface" else None)
        return self._tokenizers[0]

    def shape(self, module: str) -> tuple[int, ...] | None:
        """The shape of PEFT's delta on a module's weight, or None where the base has no such module.

        (out, in) for a linear, (n_expert, out, in) for fused experts, (n,) for a norm.
        """
        known = self._shapes.get(module)
        if known is None and (known := self._shape(module)) is not None:
            self._shapes[module] = known
        return known

    def _shape(self, module: str) -> tuple[int, ...] | None:
        place, stored = self.place(module), self.weight(module)
        if stored is not None:
            transposed = place is not None and place.transposed and self.format == "huggingface"
            return stored.shape[::-1] if transposed else stored.shape
        # A checkpoint keeps experts fused or one by one: neither is looked for. A GGUF stacks them, and takes some
        # modules apart.
        says_all = self.tensors and not self.quantization
        if place is None or (says_all and not self._is_put_together(place)):
            return None
        if self.shards and place.tensor not in self.stems:
            return None
        dims = self.dims_of(module)
        shape = tuple(dims[dim] for dim in place.shape)
        return shape if all(shape) else None

    def _is_put_together(self, place: Place) -> bool:
        return ".experts." in place.module or (self.format == "gguf" and not place.is_whole_tensor)

    def places(self, module: str) -> tuple[Place, ...]:
        """The module's GGUF places, none where the architecture or this base has no such module."""
        found = self._found.get(module, ())
        if not found and (found := self._places(module)):
            self._found[module] = found  # no other ones: adapters may name what they like
        return found

    def _places(self, module: str) -> tuple[Place, ...]:
        if self.match or self.architecture is None:
            return self.match.places.get(module, ()) if self.match else ()
        counts = (self.dims["n_layer"], self.dims.get("n_expert", 0))
        numbers = numbers_in(module)
        if not all(number < count for number, count in zip(numbers, counts, strict=False)):
            return ()
        places = self.architecture.places(module)
        if self.layer_traits:
            return tuple(place for place in places if self._has(place, numbers))
        there = tuple(place for place in places if place.tensor in self.stems)
        return there if len(places) > 1 and there else places

    def may_lack(self, module: str) -> bool:
        """Whether models of the base's kind may come without a module, by the traits of its layer."""
        place, numbers = self.place(module), numbers_in(module)
        if place is None or not place.optional or not numbers:
            return False
        traits = self.layer_traits[numbers[0]] if self.layer_traits else self._traits_of_gguf(numbers[0])
        return not traits.isdisjoint(place.optional)

    def _traits_of_gguf(self, layer: int) -> frozenset[str]:
        """What a GGUF says of a layer: it may hold keys and values that no graph looks at, and no adapter changes."""
        n = self.shards[0].kv.get(f"{self.model_type}.attention.shared_kv_layers") if self.shards else None
        return frozenset({"shared_kv"} if isinstance(n, int) and self.dims["n_layer"] - layer <= n else ())

    def matrices(self, *, with_experts: bool) -> tuple[str, ...]:
        """The modules that the base must have and that can have a LoRA; experts of their own only where asked for."""
        found = self._matrices.get(with_experts)
        if found is None:
            found = self._matrices[with_experts] = tuple(self._all_matrices(with_experts=with_experts))
        return found

    def _all_matrices(self, *, with_experts: bool) -> Iterator[str]:
        if self.match:
            yield from self.match.alike
        for pattern in self.architecture.modules if self.architecture else ():
            if "{e}" in pattern and not with_experts:
                continue
            for layer in range(self.dims["n_layer"]) if "{i}" in pattern else (0,):
                for expert in range(self.dims["n_expert"]) if "{e}" in pattern else (0,):
                    module = pattern.replace("{i}", str(layer)).replace("{e}", str(expert))
                    if len(self.shape(module) or ()) > 1 and not self.may_lack(module):
                        yield module

    def _has(self, place: Place, numbers: tuple[int, ...]) -> bool:
        dims = self.dims_of(place.module)
        is_in_layer = not numbers or place.is_in(self.layer_traits[numbers[0]])
        return is_in_layer and all(dims[dim] for dim in place.shape)

    def numbers(self) -> Mapping[str, tuple[str, ...]]:
        """The parameters that metadata have as an array, a number of each layer, by its key."""
        of_layers = self.architecture.metadata.numbers if self.architecture else {}
        layers = range(self.dims.get("n_layer", 0))
        return {key: tuple(name.replace("{i}", str(i)) for i in layers) for key, name in of_layers.items()}

    def made(self, setting: Callable[[str], float]) -> Iterator[tuple[str, int, float]]:
        """The vectors that follow from the config: name, length and the one value, some of which ``setting`` tells."""
        for name, (size, value) in (self.architecture.made if self.architecture else {}).items():
            number = setting(value) if isinstance(value, str) else value
            for i in range(self.dims["n_layer"]):
                yield name.replace("{i}", str(i)), self.dims[size], number

    def dims_of(self, module: str) -> Mapping[str, int]:
        """The dimensions in a module's layer, or in the whole model where its layers are alike."""
        numbers = numbers_in(module)
        return self.layer_dims[numbers[0]] if self.layer_dims and numbers else self.dims

    def dims_with(self, trait: str) -> Mapping[str, int]:
        """The dimensions in the first layer with a trait; those of the whole model where none has it."""
        layers = zip(self.layer_dims, self.layer_traits, strict=False)
        return next((dims for dims, traits in layers if trait in traits), self.dims)

    def orders(self, place: Place) -> Orders:
        """GGUF's orders of a place's rows and columns."""
        return place.orders(self.dims_of(place.module)) if place.rows or place.columns else Orders()

    def factors(self, place: Place) -> tuple[Section, ...]:
        """Sections of a place's rows, and what each one's numbers are multiplied by in GGUF; none where by nothing.

        A multiplier that nobody states is NaN: no GGUF states it (rules/base/multiplier_unknown.py).
        """
        dims = self.dims_of(place.module)
        return tuple(Section(dims[dim], tuple(map(self.multiplier, fields))) for dim, *fields in place.factors)

    def multiplier(self, field: str) -> float:
        """A number of the config, or of a list of it: ``mlp_multipliers.1``; NaN where no float holds it."""
        name, _, at = field.partition(".")
        value = self.architecture.setting(self.config, name) if self.architecture and self.config else None
        if at:
            value = value[int(at)] if isinstance(value, list) and int(at) < len(value) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > float_info.max:
            return nan
        return float(value)

    def place(self, module: str) -> Place | None:
        """The first of the module's places, or None."""
        return next(iter(self.places(module)), None)

    def weight(self, module: str) -> StoredTensor | None:
        """Where the module's weight lies; a tied head's is the embedding's."""
        return self.tensors.get(f"{self._stored_module(module)}.weight")

    def _stored_module(self, module: str) -> str:
        if module == HEAD and self.tied:
            return EMBEDDING
        return self.architecture.canonical(module) if self.architecture else module

    @property
    def is_convertible_checkpoint(self) -> bool:
        """Whether this is a Hugging Face directory that a GGUF may be made of: other rules refuse the other ones."""
        return (
            self.format == "huggingface"
            and self.architecture is not None
            and not self.quantization
            and not self.architecture.metadata.only_copied
        )

    @property
    def is_quantized(self) -> bool:
        """Whether a GGUF base holds block-quantised tensors."""
        return any(
            not tensor.type.is_float for shard in self.shards for tensor in shard.tensors if len(tensor.shape) > 1
        )


def read_base_model(path: Path, sizes: Mapping[str, int] | None = None, *, on_hub: "OnHub | None" = None) -> BaseModel:
    """Read the base at ``path``, a directory or a GGUF file.

    Of one ``on_hub`` there is what was fetched; ``sizes`` are those of its files of weights, which end early here.

    Raises ConverterError, status 2: there is no such base, or it is of a kind that is not read.
    """
    match read_base_files(path, sizes):
        case HuggingfaceFiles() as files:
            return _of_huggingface(files, on_hub)
        case GgufFiles() as files:
            return _of_gguf(files)


# --- Hugging Face ---------------------------------------------------------------------------------------------------


def _of_huggingface(files: HuggingfaceFiles, on_hub: "OnHub | None") -> BaseModel:
    config = files.config
    text = config.get("text_config")
    text = with_layer_types(text if isinstance(text, dict) else config)
    whole_type, text_type = str(config.get("model_type", "")), str(text.get("model_type", ""))
    if text_type in _BIDIRECTIONAL and text.get("use_bidirectional_attention") is True:
        whole_type = text_type = _BIDIRECTIONAL[text_type]
    architecture = architecture_of_model_type(whole_type, text_type)
    if all_attend(text):
        architecture = architecture_all_attention(text_type) or architecture
    if has_layers_of_experts(text):
        architecture = architecture_with_experts(text_type) or architecture
    text = _renamed(text, architecture) if architecture else text
    quantiser = quantization(config)
    tensors = _under_their_names(_safetensors_tensors(files.headers), architecture)
    tensors = dict(_left_alone(tensors)) if quantiser else tensors
    dims = config_dims(files.directory, text, architecture) if architecture else {}
    traits = layer_traits(architecture, text, dims["n_layer"]) if architecture else ()
    return BaseModel(
        path=files.directory,
        format="huggingface",
        model_type=text_type or whole_type,
        architecture=architecture,
        dims=dims,
        layer_dims=config_layer_dims(files.directory, text, architecture, traits) if architecture else (),
        layer_traits=traits,
        tied=_says_tied(config, text, architecture) and not _has_own_head(tensors, on_hub),
        tensors=tensors,
        quantization=quantiser,
        name=str(config.get("_name_or_path") or "") or _repository(files.directory, on_hub),
        config={**config, **text},
        on_hub=on_hub,
    )


def _repository(directory: Path, on_hub: "OnHub | None") -> str | None:
    return on_hub.address.model if on_hub else cached_repository(directory)


def _renamed(text: Mapping[str, object], architecture: Architecture) -> dict[str, object]:
    """The fields, also by the names that the config's class has for them now."""
    renamed = architecture.config.renamed
    alike = {field: _one(text[field]) for field in architecture.config.alike if field in text}
    return {**{name: text[old] for old, name in renamed.items() if old in text}, **text, **alike}


def _one(value: object) -> object:
    """What a list says of every layer, where that is one thing."""
    return value[0] if isinstance(value, list) and value and value.count(value[0]) == len(value) else value


# What llama.cpp calls the graph of a model type where each token attends to all: EmbeddingGemma (conversion/gemma.py).
_BIDIRECTIONAL: Final = {"gemma3_text": "gemma-embedding"}


def _says_tied(config: Mapping[str, object], text: Mapping[str, object], architecture: Architecture | None) -> bool:
    # Of a multimodal model its own word counts, as in transformers (get_expanded_tied_weights_keys).
    stated = config.get("tie_word_embeddings", text.get("tie_word_embeddings"))
    return bool(architecture and architecture.config.tied_by_default) if stated is None else bool(stated)


def _has_own_head(tensors: Mapping[str, StoredTensor], on_hub: "OnHub | None") -> bool:
    """Whether the checkpoint has a head that is another tensor than its embedding, whatever its config says.

    A merge of saved ends leaves such a one. transformers 5 loads both, and llama.cpp's converter writes both.
    """
    head, embedding = tensors.get(f"{HEAD}.weight"), tensors.get(f"{EMBEDDING}.weight")
    if head is None or embedding is None:
        return False
    if on_hub:
        raise ConverterError(
            f"{on_hub.address}: stores a head beside the embedding that it says is tied to it; whether both are the "
            "same only its weights tell: download it, and give the directory"
        )
    return not head.holds_the_bytes_of(embedding)


def quantization(config: Mapping[str, object]) -> str | None:
    """The quantiser of PyTorch's that a config names."""
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


def _safetensors_tensors(headers: Iterable[SafetensorsHeader]) -> Mapping[str, StoredTensor]:
    return {normal_module(info.name): _stored(header, info) for header in headers for info in header.entries}


def _under_their_names(
    tensors: Mapping[str, StoredTensor], architecture: Architecture | None
) -> Mapping[str, StoredTensor]:
    """The tensors under the names that the architecture's table has."""
    if architecture is None or not architecture.aliases:
        return tensors
    parts = ((*key.rpartition("."), stored) for key, stored in tensors.items())
    return {f"{architecture.canonical(module)}{dot}{name}": stored for module, dot, name, stored in parts}


def _stored(header: SafetensorsHeader, info: TensorInfo) -> StoredTensor:
    """Kernels of a convolution over one channel each, (n, 1, width), are matrices to llama.cpp."""
    shape = (info.shape[0], info.shape[2]) if len(info.shape) == 3 and info.shape[1] == 1 else info.shape
    return StoredTensor(header.path, header.data_offset + info.begin, info.end - info.begin, shape, info.dtype)


# --- GGUF -----------------------------------------------------------------------------------------------------------


def _of_gguf(files: GgufFiles) -> BaseModel:
    path, shards = files.path, files.shards
    kv = shards[0].kv
    _refuse_other_kinds(path, kv)
    model_type = str(kv.get("general.architecture", ""))
    architecture = architecture_named(model_type, kv)
    names = [tensor.name for shard in shards for tensor in shard.tensors]
    if architecture and any(name.endswith(".ffn_gate_up_exps.weight") for name in names):
        from converter.derive.fused_gguf import with_joined_experts

        architecture = with_joined_experts(architecture)
    from converter.derive.gguf_dimensions import gguf_dims

    dims, layer_dims = gguf_dims(files, architecture) if architecture else ({}, ())
    fused: Fused = {}
    if architecture and any(".attn_qkv." in name for name in names):
        from converter.derive.fused_gguf import taken_apart

        shards, fused = taken_apart(shards, architecture, lambda i: layer_dims[i] if i < len(layer_dims) else dims)
    by_name = {tensor.name: (tensor, shard.path) for shard in shards for tensor in shard.tensors}
    return BaseModel(
        path=path,
        format="gguf",
        model_type=model_type,
        architecture=architecture,
        dims=dims,
        layer_dims=layer_dims,
        tied="output.weight" not in by_name,
        tensors=_gguf_tensors(architecture, by_name) if architecture else {},
        stems=frozenset(name.removesuffix(".weight") for name in by_name if name.endswith(".weight")),
        shards=shards,
        fused=fused,
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
        if place is None and (whole := architecture.source(name)) and not (whole.parameter or whole.bare):
            place, parameter = whole, ""  # Falcon-H1's ffn_norm
        if place:
            stored = StoredTensor(path, tensor.offset, tensor.nbytes, tensor.shape, tensor.type.name)
            own = parameter if parameter != place.parameter else "" if place.bare else "weight"
            tensors[f"{place.module}.{own}" if own else place.module] = stored
    return tensors
