"""Ways to spoil a file, by what it is: JSON, safetensors, text of lines, or bytes. Each is a function of a Random."""

import json
import random
import struct
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Final

from converter.dtypes import SAFETENSORS_ITEMSIZE

Rng = random.Random
Mutation = Callable[[Rng, bytes], bytes]

_DEEP: Final[list[Any]] = json.loads("[" * 500 + "]" * 500)
VALUES: Final[Sequence[Any]] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 255, 1 << 31, 1 << 32, 1 << 53, 1 << 62, 1 << 63, 1 << 64, 10**400),
    *(-0.0, 0.5, 1e-320, 1e308, float("nan"), float("inf"), -float("inf")),
    *("", "a", "\0", "\ud800", "\x1b[31m", "::error::", "a" * 5000, "1" * 5000, "../x", "/dev/zero", "C:\\x", "nul"),
    *("(a+)+$", "[", ".*", "(", "(?i)a", "\\", "a|b", "^$", "(.*)*!", "all-linear", "lm_head", "embed_tokens"),
    *("model.layers.0.self_attn.q_proj", "model.layers.9.mlp.experts.0.up_proj", "F32", "BF16", "F8_E4M3", "I64"),
    *("LORA", "IA3", "VERA", "llama", "gemma3_text", "qwen3_5_moe", "float16", "pissa", "pissa_niter_4", "eva"),
    *([], {}, [[]], [None], [0] * 3000, ["a"] * 3000, {"": {}}, {str(i): i for i in range(3000)}, _DEEP),
    *([0, 1], [1, 0], [[0, 1 << 30]], [-1], {"q_proj": 1 << 40}, {".*": 0}, {"(a|a)*b": 8}, [1.5], ["q_proj", 3]),
)
_NAMES: Final = tuple(value for value in VALUES if isinstance(value, str))
_NUMBERS: Final = tuple(
    struct.pack("<f", x) for x in (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-45, 3e38, 7e4, 1.0, -1.0)
)
_INTS: Final = (0, 1, 2, 7, 8, 12, 13, 32, 255, 256, 65535, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_MOST_NBYTES: Final = 1 << 20  # of a file of another shape
_LONGS: Final = (*_INTS, 1 << 32, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def spoilt(rng: Rng, name: str, data: bytes) -> bytes:
    """A file's bytes with something changed."""
    return rng.choice(_MUTATIONS.get(name.rpartition(".")[2], _OF_BYTES))(rng, data)


# --- JSON -------------------------------------------------------------------------------------------------------------


def _json(rng: Rng, data: bytes) -> bytes:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return _flipped(rng, data)
    return json.dumps(_changed(rng, value)).encode()


def _changed(rng: Rng, value: Any, depth: int = 0) -> Any:
    """The value with one of those in it put in another's place, taken out, doubled or renamed."""
    if not isinstance(value, dict | list) or not value or depth > 40 or rng.random() < 0.1:
        return rng.choice(VALUES)
    return _changed_object(rng, value, depth) if isinstance(value, dict) else _changed_list(rng, value, depth)


def _changed_object(rng: Rng, value: dict[str, Any], depth: int) -> dict[str, Any]:
    key, other = rng.choice([*value]), rng.choice([*value])
    match rng.randrange(8):
        case 0:
            return {k: v for k, v in value.items() if k != key}
        case 1:
            return {**value, rng.choice(_NAMES): value[key]}
        case 2:
            return {**value, key: value[other]}
        case 3:
            return {**value, key: [value[key]]}
        case _:
            return {**value, key: _changed(rng, value[key], depth + 1)}


def _changed_list(rng: Rng, value: list[Any], depth: int) -> list[Any]:
    at = rng.randrange(len(value))
    match rng.randrange(6):
        case 0:
            return value[:at] + value[at + 1 :]
        case 1:
            return value * rng.choice((2, 50))
        case _:
            return [*value[:at], _changed(rng, value[at], depth + 1), *value[at + 1 :]]


def _json_lines(rng: Rng, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True) or [b""]
    at = rng.randrange(len(lines))
    return b"".join((*lines[:at], _json(rng, lines[at]).replace(b"\n", b" ") + b"\n", *lines[at + 1 :]))


# --- safetensors ------------------------------------------------------------------------------------------------------


def _header(rng: Rng, data: bytes) -> bytes:
    """Another header, its length told rightly or not."""
    length = int.from_bytes(data[:8], "little")
    header = _json(rng, data[8 : 8 + length])
    told = len(header) if rng.random() < 0.9 else rng.choice(_LONGS)
    return struct.pack("<Q", told) + header + data[8 + length :]


def _tensor(rng: Rng, data: bytes) -> bytes:
    """Tensors of another type or shape in a file that is whole; of one that says nothing of them, another byte."""
    try:
        return _of_other_tensors(rng, data)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return _flipped(rng, data)


def _of_other_tensors(rng: Rng, data: bytes) -> bytes:
    """The file written anew: the bytes of those tensors are cut, or go on with themselves."""
    begin = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:begin])
    told: dict[str, Any] = {name: header.pop(name) for name in ("__metadata__",) if name in header}
    chosen = rng.sample(sorted(header), min(len(header), rng.choice((1, 1, 2, 8))))
    values: list[bytes] = []
    for name, old in header.items():
        entry = _entry(rng, old) if name in chosen else old
        n, end = SAFETENSORS_ITEMSIZE[entry["dtype"]] * prod(entry["shape"]), sum(map(len, values))
        if not 0 <= end + n <= _MOST_NBYTES:
            raise ValueError(n)
        values.append(_filled(data[begin:][slice(*old["data_offsets"])], n))
        told[name] = {**entry, "data_offsets": [end, end + n]}
    text = json.dumps(told).encode()
    return b"".join((struct.pack("<Q", len(text)), text, *values))


def _entry(rng: Rng, entry: dict[str, Any]) -> dict[str, Any]:
    shape = list(entry["shape"])
    at = rng.randrange(len(shape) + 1)
    match rng.randrange(8):
        case 0:
            shape.insert(at, rng.choice((1, 1, 2)))
        case 1 if shape:
            shape.pop(at % len(shape))
        case 2:
            shape.reverse()
        case 3 | 4 if shape:
            n = shape[at % len(shape)]
            shape[at % len(shape)] = rng.choice((0, 1, n - 1, n + 1, 2 * n, n // 2, 1024))
        case _:
            return {**entry, "dtype": rng.choice([*SAFETENSORS_ITEMSIZE])}
    return {**entry, "shape": shape}


def _filled(data: bytes, n: int) -> bytes:
    return (data * (n // len(data) + 1))[:n] if data else bytes(n)


_PARTS: Final = (
    *("lora_A", "lora_B", "lora_embedding_A", "lora_magnitude_vector", "base_layer", "default", "weight", "bias", ""),
    *("modules_to_save", "base_model", "model", "layers", "0", "1", "lm_head", "experts", "token_adapter"),
)


def _key(rng: Rng, data: bytes) -> bytes:
    """A key's part put in another's place: another module, layer, factor or adapter name."""
    return data.replace(rng.choice(_PARTS).encode(), rng.choice(_PARTS).encode(), rng.choice((1, 1, 2, -1)))


def _numbers(rng: Rng, data: bytes) -> bytes:
    begin = 8 + int.from_bytes(data[:8], "little")
    n = max(1, (len(data) - begin) // 4)
    at = begin + 4 * rng.randrange(n)
    count = rng.choice((1, 8, n))
    return data[:at] + rng.choice(_NUMBERS) * min(count, n) + data[at + 4 * min(count, n) :]


# --- Text and bytes ---------------------------------------------------------------------------------------------------


def _lines(rng: Rng, data: bytes) -> bytes:
    """A line doubled, taken out, moved, or with another value behind its ``=``."""
    lines = data.splitlines(keepends=True) or [b""]
    at = rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            lines.insert(rng.randrange(len(lines) + 1), lines[at])
        case 1:
            lines.pop(at)
        case 2:
            lines[at] = rng.choice(lines)
        case _:
            key = lines[at].partition(b"=")[0]
            value = json.dumps(rng.choice(VALUES))
            lines[at] = key + b"= " + value.encode() + b"\n"
    return b"".join(lines)


def _flipped(rng: Rng, data: bytes) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 2, 8))):
        changed[rng.randrange(len(changed))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return bytes(changed)


def _whole_number(rng: Rng, data: bytes) -> bytes:
    """A number of four or eight bytes near the beginning, where counts, lengths and types stand."""
    code, pool = rng.choice((("<I", _INTS), ("<Q", _LONGS)))
    at = rng.randrange(max(1, min(len(data), 2000)))
    return data[:at] + struct.pack(code, rng.choice(pool)) + data[at + struct.calcsize(code) :]


def _cut(rng: Rng, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _longer(rng: Rng, data: bytes) -> bytes:
    return data + rng.choice((b"\0", b" ", b"\n", b"{", b"\xff")) * rng.choice((1, 100, 1 << 20))


def _copied(rng: Rng, data: bytes) -> bytes:
    """A piece of it put at another place, in or over what is there."""
    begin = rng.randrange(len(data) + 1)
    piece = data[begin : begin + rng.choice((1, 10, 100, 10_000))]
    at = rng.randrange(len(data) + 1)
    return data[:at] + piece + data[at + rng.choice((0, len(piece))) :]


def _nothing(_rng: Rng, _data: bytes) -> bytes:
    return b""


_OF_BYTES: Final[Sequence[Mutation]] = (_flipped, _cut, _longer, _copied, _nothing)
_OF_JSON: Final[Sequence[Mutation]] = (*[_json] * 8, *_OF_BYTES)
_MUTATIONS: Final[Mapping[str, Sequence[Mutation]]] = {
    "json": _OF_JSON,
    "jsonl": (*[_json_lines] * 8, *_OF_BYTES),
    "safetensors": (*[_header] * 4, *[_tensor] * 4, *[_key] * 3, _numbers, _whole_number, *_OF_BYTES),
    "gguf": (*[_whole_number] * 6, *[_flipped] * 3, *_OF_BYTES),
    "toml": (*[_lines] * 5, *_OF_BYTES),
    "csv": (*[_lines] * 3, *_OF_BYTES),
    "parquet": (*[_whole_number] * 2, *_OF_BYTES),
}
