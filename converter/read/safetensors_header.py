"""The header of a safetensors file, read leniently: faults stay in the data for the rules to judge.

Format: https://huggingface.co/docs/safetensors#format (8 bytes little-endian length, JSON, tensor bytes).
"""

import os
import struct
from functools import lru_cache
from pathlib import Path
from sys import intern
from typing import Final, NamedTuple, NoReturn, TypeGuard

from converter.read.files import START_NBYTES, Unreadable, open_regular
from converter.read.limits import DIMENSIONS, HEADER_NBYTES, TENSORS
from converter.read.strict_json import parsed_json, require_characters


class TensorInfo(NamedTuple):
    """One entry as the header states it; ``begin`` and ``end`` are byte offsets from ``data_offset``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsHeader(NamedTuple):
    """A safetensors file without its tensor bytes. ``entries`` is a tuple: duplicate keys must survive reading."""

    path: Path
    entries: tuple[TensorInfo, ...]
    metadata: object
    data_offset: int
    nbytes: int
    malformed: tuple[str, ...] = ()

    def states_the_same(self, other: "SafetensorsHeader") -> bool:
        """Whether both are the same bytes, in files of one name and size. False where that isn't known."""
        # The reader gives one object for the same bytes; of an empty tuple there is one alone.
        is_same = bool(self.entries) and self.entries is other.entries
        return is_same and self.nbytes == other.nbytes and self.path.name == other.path.name


def read_safetensors_header(path: Path, whole_nbytes: int | None = None) -> SafetensorsHeader:
    """Read the header of the safetensors file at ``path``, which has ``whole_nbytes`` where only its start is here.

    Raises Unreadable where there is no JSON object of the stated length, OSError where the file can't be read.
    """
    with open_regular(path) as file:
        nbytes = os.fstat(file.fileno()).st_size if whole_nbytes is None else whole_nbytes
        start = file.read(START_NBYTES)
        length = _header_length(start, nbytes)
        file.seek(8)
        raw = file.read(length)
    entries, metadata, malformed = _last_stated(raw) if len(raw) <= _KEPT_NBYTES else _stated(raw)
    return SafetensorsHeader(path, entries, metadata, 8 + length, nbytes, malformed)


_KEPT_NBYTES: Final = 1 << 20


@lru_cache(maxsize=1)  # the adapters that are judged in one run mostly have the same one
def _last_stated(raw: bytes) -> tuple[tuple[TensorInfo, ...], object, tuple[str, ...]]:
    return _stated(raw)


def _stated(raw: bytes) -> tuple[tuple[TensorInfo, ...], object, tuple[str, ...]]:
    """The tensors, the metadata and the malformed entries that a header states. Raises Unreadable."""
    pairs = _json_object(raw)
    if len(pairs) > TENSORS:
        raise Unreadable(f"holds {len(pairs)} tensors (at most {TENSORS})")
    return _entries(pairs)


def _header_length(start: bytes, nbytes: int) -> int:
    if len(start) < 8:
        from converter.read.foreign import refuse_foreign

        refuse_foreign(start)
        raise Unreadable(f"has {nbytes} bytes, too short for a safetensors header" if nbytes else "is empty")
    length: int = struct.unpack_from("<Q", start)[0]
    if length > min(HEADER_NBYTES, nbytes - 8):
        from converter.read.foreign import refuse_foreign

        refuse_foreign(start)
    if length > HEADER_NBYTES:
        raise Unreadable(f"claims a header of {length} bytes (at most {HEADER_NBYTES})")
    if 8 + length > nbytes:
        raise Unreadable(f"claims a header of {length} bytes, but the file ends after {nbytes}: it is truncated")
    return length


# A JSON object as its pairs: json keeps only the last of duplicate keys. A tuple is nothing else of JSON's.
_Pairs = tuple[tuple[str, object], ...]


def _json_object(raw: bytes) -> _Pairs:
    """The header as safetensors' own reader takes it (serde_json), which knows no NaN, and no -0 for a size."""
    parse_int = _size if b"-0" in raw else None
    parsed = parsed_json(raw, object_pairs_hook=tuple, parse_int=parse_int, parse_constant=_refuse_constant)
    if not isinstance(parsed, tuple):
        raise Unreadable("its header is not a JSON object")
    require_characters(raw, parsed)
    return parsed


def _size(digits: str) -> int:
    return -1 if digits == "-0" else int(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _entries(pairs: _Pairs) -> tuple[tuple[TensorInfo, ...], object, tuple[str, ...]]:
    entries: list[TensorInfo] = []
    malformed: list[str] = []
    metadata: list[object] = []
    for name, value in pairs:
        if name == "__metadata__":
            metadata.append(dict(value) if isinstance(value, tuple) else value)
        elif entry := _entry(name, value):
            entries.append(entry)
        else:
            malformed.append(name)
    if len(metadata) > 1:
        malformed.append("__metadata__")
    return tuple(entries), metadata[0] if metadata else None, tuple(malformed)


_FIELDS: Final = ("dtype", "shape", "data_offsets")


def _entry(name: str, value: object) -> TensorInfo | None:
    """The tensor that an object states; None where it isn't just type, shape and offsets."""
    if not isinstance(value, tuple) or len(value) != 3:
        return None
    (first, dtype), (second, shape), (third, offsets) = value
    if (first, second, third) != _FIELDS:  # as safetensors writes them
        fields = dict(value)
        dtype, shape, offsets = (fields.get(field) for field in _FIELDS)
    if isinstance(dtype, str) and _are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2:
        return TensorInfo(name, intern(dtype), tuple(shape), offsets[0], offsets[1])
    return None


def _are_sizes(value: object) -> TypeGuard[list[int]]:
    if type(value) is not list or len(value) > DIMENSIONS:
        return False
    for size in value:  # noqa: SIM110  a generator would take twice as long, in the loop of every tensor
        if type(size) is not int or not 0 <= size < 1 << 63:
            return False
    return True
