"""What a host has to know of the Gemma it runs: sizes, and the metadata that are not sizes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from converter.derive.base_model import BaseModel
from converter.errors import ConverterError
from converter.planning.conversion_plan import (
    CopiedKeyValue,
    EditedArray,
    NewArray,
    NewKeyValue,
    NewScalar,
    PlannedFile,
    PlannedKeyValue,
    StoredNumbers,
)
from converter.read.gguf_header import GgufArray

# What llama.cpp takes where the file says nothing (src/llama-model.cpp; src/models/gemma2.cpp).
_THETA: Final = 10000.0
_WINDOW: Final = 4096

Value = str | int | float


@dataclass(frozen=True, slots=True)
class Gemma:
    """A Gemma 1 or 2. ``window`` is None where attention is global in every layer."""

    architecture: str
    n_layer: int
    n_head: int
    n_head_kv: int
    head_dim: int
    hidden: int
    ffn: int
    vocab: int
    eps: float
    theta: float
    context: int
    window: int | None


def gemma_of(base: BaseModel, file: PlannedFile) -> Gemma:
    """The Gemma of a planned file. Raises ConverterError where its metadata lack what its graph needs."""
    dims, architecture = base.dims, base.architecture.name if base.architecture else base.model_type
    values = {entry.key: value_of(entry) for entry in file.key_values}

    def number(key: str, otherwise: float | None = None) -> float:
        value = values.get(f"{architecture}.{key}", otherwise)
        if not isinstance(value, int | float):
            raise ConverterError(f"{base.path}: {architecture}.{key} is {value!r}, wanted a number")
        return value

    return Gemma(
        architecture=architecture,
        n_layer=dims["n_layer"],
        n_head=dims["n_head"],
        n_head_kv=dims["n_head_kv"],
        head_dim=dims["head_dim"],
        hidden=dims["hidden"],
        ffn=dims["ffn"],
        vocab=dims["vocab"],
        eps=number("attention.layer_norm_rms_epsilon"),
        theta=number("rope.freq_base", _THETA),
        context=int(number("context_length")),
        window=int(number("attention.sliding_window", _WINDOW)) if architecture == "gemma2" else None,
    )


def value_of(entry: PlannedKeyValue) -> Value | None:
    """A metadata entry's value; None for an array."""
    match entry:
        case CopiedKeyValue(_, copied):
            return None if isinstance(copied.value, GgufArray) else copied.value
        case NewKeyValue(_, value):
            return None if isinstance(value, tuple) else value
        case NewScalar(_, _, value):
            return value
        case EditedArray() | NewArray() | StoredNumbers():
            return None


def with_metadata(
    file: PlannedFile, gemma: Gemma, architecture: str, changes: Mapping[str, Value | NewArray | None]
) -> PlannedFile:
    """The file as one of another architecture; ``changes`` are keys below it, None removes one."""
    own = f"{gemma.architecture}."
    entries = {
        (f"{architecture}.{entry.key.removeprefix(own)}" if entry.key.startswith(own) else entry.key): entry
        for entry in file.key_values
    }
    renamed = dict(_renamed(entries))
    renamed["general.architecture"] = NewKeyValue("general.architecture", architecture)
    for name, value in changes.items():
        key = f"{architecture}.{name}"
        if value is None:
            renamed.pop(key, None)
        else:
            renamed[key] = value._replace(key=key) if isinstance(value, NewArray) else NewKeyValue(key, value)
    return file._replace(key_values=tuple(renamed.values()))


def _renamed(entries: Mapping[str, PlannedKeyValue]) -> Iterator[tuple[str, PlannedKeyValue]]:
    for key, entry in entries.items():
        value = value_of(entry)
        if key == entry.key:
            yield key, entry
        elif value is not None:
            yield key, NewKeyValue(key, value)
