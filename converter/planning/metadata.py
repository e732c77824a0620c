"""The output's metadata: a GGUF base's own, byte for byte, or what a Hugging Face directory says, as GGUF's keys.

Which key comes from which field of the config is data of the architecture. Keys: gguf-py/gguf/constants.py of
https://github.com/ggml-org/llama.cpp; what llama.cpp's converter writes: its conversion/base.py.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from converter.architectures import Architecture, Metadata
from converter.derive.base_model import BaseModel
from converter.derive.gguf_dimensions import GGUF_KEYS
from converter.derive.model_names import HUB_NAME, last_part
from converter.planning.conversion_plan import (
    CopiedKeyValue,
    NewArray,
    NewKeyValue,
    PlannedKeyValue,
    PlannedTensor,
    StoredNumbers,
)
from converter.planning.rope import rope_arrays, rope_key_values
from converter.planning.tokenizer import tokenizer_key_values
from converter.read.gguf_header import BOOL, DEFAULT_ALIGNMENT, INT32

# LLAMA_FTYPE in llama.cpp's include/llama.h: informative, of the type that most elements have.
_FILE_TYPES: Final = {"F32": 0, "F16": 1, "Q8_0": 7, "BF16": 32}
_FLOATS: Final = ("epsilon", "scale", "softcapping", "clamp_kqv")


def alignment_of(base: BaseModel) -> int:
    """The alignment of tensors in the output."""
    return base.shards[0].alignment if base.shards else DEFAULT_ALIGNMENT


def base_key_values(base: BaseModel, tensors: tuple[PlannedTensor, ...]) -> tuple[PlannedKeyValue, ...]:
    """The metadata of an output that has these tensors."""
    if base.format == "gguf":
        return tuple(_copied(base))
    return (*_general(base, tensors), *graph_key_values(base), *tokenizer_key_values(base))


def graph_key_values(base: BaseModel) -> tuple[NewKeyValue | NewArray | StoredNumbers, ...]:
    """What llama.cpp's graph is told of a Hugging Face base."""
    return (*_settings(base), *rope_key_values(base), *rope_arrays(base), *_numbers(base))


def _copied(base: BaseModel) -> Iterator[PlannedKeyValue]:
    """What says "one of several split files" stays behind, for the output is one file.

    A base with replicated layers has another number of them.
    """
    first = base.shards[0]
    n_layers = NewKeyValue(f"{base.model_type}.block_count", base.dims["n_layer"])
    for entry in first.key_values:
        if base.original and entry.key == n_layers.key:
            yield n_layers
        elif not entry.key.startswith("split."):
            yield CopiedKeyValue(first.path, entry)


def _general(base: BaseModel, tensors: tuple[PlannedTensor, ...]) -> Iterator[NewKeyValue]:
    yield NewKeyValue("general.architecture", base.architecture.name if base.architecture else base.model_type)
    yield NewKeyValue("general.type", "model")
    yield NewKeyValue("general.name", _public_name(base))
    nbytes = Counter[str]()
    for tensor in tensors:
        nbytes[tensor.type.name] += tensor.nbytes
    (most, _), *_ = nbytes.most_common(1)
    yield NewKeyValue("general.file_type", _FILE_TYPES[most])
    yield NewKeyValue("general.quantization_version", 2)


def _public_name(base: BaseModel) -> str:
    """The base's name without the path of whoever saved it, which the config keeps as _name_or_path."""
    name = base.name or ""
    name = name if re.fullmatch(HUB_NAME, name) else last_part(name)
    return name if name.strip("~.") and name.isprintable() else base.label


def _settings(base: BaseModel) -> Iterator[NewKeyValue | NewArray]:
    if base.architecture is None:
        return
    name, metadata = base.architecture.name, base.architecture.metadata
    for key, value in (*_dimensions(base, metadata), *_of_table(base, metadata), *_of_fields(base, base.architecture)):
        match value:
            case tuple():
                yield NewArray(f"{name}.{key}", BOOL if isinstance(value[0], bool) else INT32, value)
            case number:
                yield NewKeyValue(f"{name}.{key}", number)


Value = int | float | tuple[int, ...]


def _dimensions(base: BaseModel, metadata: Metadata) -> Iterator[tuple[str, Value]]:
    """The sizes; layer by layer where layers differ in them."""
    elsewhere = {**metadata.required, **metadata.constant, **metadata.dims}
    same_in_all = base.architecture.graph.sizes if base.architecture else {}
    for dim, key in (*GGUF_KEYS.items(), ("head_dim", "attention.value_length")):
        if dim in base.dims and dim not in same_in_all and key not in elsewhere and (base.dims[dim] or dim == "ple"):
            values = tuple(dims[dim] for dims in base.layer_dims)
            yield key, values if len({*values}) > 1 else (*values, base.dims[dim])[0]
    for key, (dim, trait) in metadata.dims.items():
        yield key, base.dims_with(trait)[dim]


def _of_table(base: BaseModel, metadata: Metadata) -> Iterator[tuple[str, Value]]:
    """What the table says of the config beside numbers of its fields."""
    for key, trait in metadata.by_layer.items():
        yield key, tuple(trait in traits for traits in base.layer_traits)
    for key, path in metadata.counts.items():
        yield key, _count(base.config, path)
    yield from metadata.constant.items()
    yield "vocab_size", base.dims["vocab"]


def _numbers(base: BaseModel) -> Iterator[StoredNumbers]:
    """What was learned that llama.cpp has no tensor for."""
    for key, parameters in base.numbers().items():
        yield StoredNumbers(key, parameters, tuple(base.tensors[name] for name in parameters))


def _of_fields(base: BaseModel, architecture: Architecture) -> Iterator[tuple[str, Value]]:
    metadata = architecture.metadata
    for key, field in (*metadata.required.items(), *metadata.optional.items()):
        value = architecture.setting(base.config, field)
        if isinstance(value, bool):
            yield key, value
        elif isinstance(value, int | float):
            yield key, float(value) if key.endswith(_FLOATS) else int(value)


def _count(config: Mapping[str, object], path: str) -> int:
    """How many elements the list at a dotted path has; 0 where there is none."""
    found: object = config
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return len(found) if isinstance(found, list) else 0
