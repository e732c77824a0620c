"""The header of a safetensors file, read leniently: faults stay in the data for the rules to judge.

Format: https://huggingface.co/docs/safetensors#format (8 bytes little-endian length, JSON, tensor bytes).
"""

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeGuard

from converter.read.files import Unreadable, open_regular

MAX_HEADER_NBYTES: Final = 100_000_000  # safetensors' own limit (MAX_HEADER_SIZE in safetensors/src/tensor.rs)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One entry as the header states it; ``begin`` and ``end`` are byte offsets from ``data_offset``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """A safetensors file without its tensor bytes. ``entries`` is a tuple: duplicate keys must survive reading."""

    path: Path
    entries: tuple[TensorInfo, ...]
    metadata: object
    data_offset: int
    nbytes: int
    malformed: tuple[str, ...] = ()


def read_safetensors_header(path: Path) -> SafetensorsHeader:
    """Read the header of the safetensors file at ``path``.

    Raises Unreadable where there is no JSON object of the stated length, OSError where the file can't be read.
    """
    with open_regular(path) as file:
        nbytes = os.fstat(file.fileno()).st_size
        length = _header_length(file.read(8), nbytes)
        raw = file.read(length)
    entries, metadata, malformed = _entries(_json_object(raw))
    return SafetensorsHeader(path, entries, metadata, 8 + length, nbytes, malformed)


def _header_length(start: bytes, nbytes: int) -> int:
    if len(start) < 8:
        raise Unreadable(f"has {nbytes} bytes, too short for a safetensors header")
    length: int = struct.unpack("<Q", start)[0]
    if length > MAX_HEADER_NBYTES:
        raise Unreadable(f"claims a header of {length} bytes (at most {MAX_HEADER_NBYTES})")
    if 8 + length > nbytes:
        raise Unreadable(f"claims a header of {length} bytes, but the file ends after {nbytes}: it is truncated")
    return length


def _json_object(raw: bytes) -> list[tuple[str, object]]:
    try:
        # Objects become lists of pairs, because json keeps only the last of duplicate keys.
        parsed = json.loads(raw, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"its header is not JSON: {error}") from error
    if not isinstance(parsed, _Pairs):
        raise Unreadable("its header is not a JSON object")
    return parsed


class _Pairs(list[tuple[str, object]]):
    """A JSON object as its pairs, told apart from a JSON array."""


def _entries(pairs: list[tuple[str, object]]) -> tuple[tuple[TensorInfo, ...], object, tuple[str, ...]]:
    entries: list[TensorInfo] = []
    malformed: list[str] = []
    metadata: object = None
    for name, value in pairs:
        if name == "__metadata__":
            metadata = dict(value) if isinstance(value, _Pairs) else value
        elif (info := _tensor_info(name, value)) is None:
            malformed.append(name)
        else:
            entries.append(info)
    return tuple(entries), metadata, tuple(malformed)


def _tensor_info(name: str, value: object) -> TensorInfo | None:
    if not isinstance(value, _Pairs) or len(value) != 3:
        return None
    fields = dict(value)
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if not isinstance(dtype, str) or not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        return None
    return TensorInfo(name, dtype, tuple(shape), offsets[0], offsets[1])


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)
