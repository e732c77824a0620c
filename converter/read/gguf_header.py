"""A header scan of GGUF: metadata and tensor table, no tensor bytes, no numpy.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. gguf.GGUFReader maps and decodes the whole
file (tens of seconds on a large vocabulary); a scan that steps over arrays takes well under a tenth.
"""

import os
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Final, NamedTuple

from converter.dtypes import GGML_BY_ID, GgmlType
from converter.errors import ConverterError
from converter.read.files import START_NBYTES, could_not_read, open_regular, read_bytes
from converter.read.limits import GGUF_HEADER_NBYTES, METADATA_ENTRIES, METADATA_STRINGS, TENSORS

MAGIC: Final = b"GGUF"
DEFAULT_ALIGNMENT: Final = 32
_MAX_DIMS: Final = 4  # GGML_MAX_DIMS
_CHUNK_NBYTES: Final = 1 << 20

UINT8, INT8, UINT16, INT16, UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64, FLOAT64 = range(13)
_SCALARS: Final[Mapping[int, struct.Struct]] = {
    UINT8: struct.Struct("<B"),
    INT8: struct.Struct("<b"),
    UINT16: struct.Struct("<H"),
    INT16: struct.Struct("<h"),
    UINT32: struct.Struct("<I"),
    INT32: struct.Struct("<i"),
    FLOAT32: struct.Struct("<f"),
    BOOL: struct.Struct("<?"),
    UINT64: struct.Struct("<Q"),
    INT64: struct.Struct("<q"),
    FLOAT64: struct.Struct("<d"),
}

Scalar = int | float | bool | str


class GgufArray(NamedTuple):
    """An array in the metadata: where it lies, not its values. ``n`` elements of ``element_type``."""

    element_type: int
    n: int
    offset: int
    nbytes: int


class GgufTensor(NamedTuple):
    """One tensor: ``shape`` row-major (GGUF's ``ne`` reversed, as Hugging Face writes it), ``offset`` in the file."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset: int
    nbytes: int


class KeyValue(NamedTuple):
    """One metadata entry; ``begin`` and ``end`` are byte offsets of the whole entry, key included."""

    key: str
    value_type: int
    value: Scalar | GgufArray
    begin: int
    end: int


class GgufHeader(NamedTuple):
    """A GGUF file without its tensor bytes. ``tensors`` keeps the file's order."""

    path: Path
    version: int
    alignment: int
    key_values: tuple[KeyValue, ...]
    tensors: tuple[GgufTensor, ...]
    data_offset: int
    nbytes: int

    @property
    def kv(self) -> dict[str, Scalar | GgufArray]:
        """Metadata by key; scalars and strings decoded, arrays as ``GgufArray``."""
        return {entry.key: entry.value for entry in self.key_values}

    @property
    def by_name(self) -> dict[str, GgufTensor]:
        """Tensors by name."""
        return {tensor.name: tensor for tensor in self.tensors}


class _Cursor:
    """Reads little-endian values off a file's beginning; running past the end is the file's fault, not a crash.

    Not off a mapping: a mapped file that is cut short while it is read ends the process (SIGBUS).
    """

    def __init__(self, path: Path, file: BufferedReader) -> None:
        self.path = path
        self.nbytes = os.fstat(file.fileno()).st_size
        self.data = bytearray()  # as far as it was read
        self.at = 0
        self._file = file

    def scalar(self, value_type: int) -> int | float | bool:
        codec = _SCALARS[value_type]
        value: int | float | bool = codec.unpack(self.take(codec.size))[0]
        return value

    def count(self) -> int:
        return int(self.scalar(UINT64))

    def take(self, n: int) -> bytearray:
        end = self.skip(n)
        return self.data[end - n : end]

    def skip(self, n: int) -> int:
        self.load(self.at + n)
        self.at += n
        return self.at

    def load(self, end: int) -> None:
        """Have the file's first ``end`` bytes in ``data``."""
        if end > self.nbytes:
            raise ConverterError(
                f"{self.path}: the GGUF header runs past the end of the file "
                f"(wanted byte {end}, the file has {self.nbytes}); copy or download it again"
            )
        if end > GGUF_HEADER_NBYTES:
            raise ConverterError(f"{self.path}: the GGUF header has more than {GGUF_HEADER_NBYTES} bytes")
        if end > len(self.data):
            self.data += self._file.read(max(_CHUNK_NBYTES, end - len(self.data)))
        if end > len(self.data):
            raise ConverterError(f"{self.path}: ended while it was read; it is truncated or changing")

    def string(self) -> str:
        return self.take(self.count()).decode("utf-8", errors="surrogateescape")


def read_gguf_header(path: Path) -> GgufHeader:
    """Scan the header of the GGUF file at ``path``.

    Raises ConverterError, status 2, where it can't be read, is of a kind that we don't read, malformed or truncated.
    """
    with could_not_read(path), open_regular(path) as file:
        _refuse_others(path, file.read(START_NBYTES))
        file.seek(0)
        return _scan(_Cursor(path, file))


def _refuse_others(path: Path, start: bytes) -> None:
    if start[:4] != MAGIC:
        from converter.read.foreign import refuse_foreign

        refuse_foreign(start)
    if start[:4] != MAGIC or len(start) < 8:
        raise ConverterError(f"{path}: not a GGUF file (begins with {start[:4]!r}, wanted {MAGIC!r})")
    little, big = struct.unpack_from("<I", start, 4)[0], struct.unpack_from(">I", start, 4)[0]
    if little & 0xFFFF == 0 and big < 0x10000:
        raise ConverterError(f"{path}: a big-endian GGUF, which is not read; convert it to little-endian first")
    if little not in (2, 3):
        raise ConverterError(
            f"{path}: GGUF version {little} is not read (wanted 2 or 3); rewrite it with a current tool"
        )


def _scan(cursor: _Cursor) -> GgufHeader:
    cursor.skip(4)
    version = int(cursor.scalar(UINT32))
    n_tensors, n_kv = cursor.count(), cursor.count()
    _require_plausible(cursor, n_kv, METADATA_ENTRIES, "metadata entries")
    key_values = tuple(_key_value(cursor) for _ in range(n_kv))
    _refuse_twice(cursor.path, "key", [entry.key for entry in key_values])
    alignment = _alignment(cursor.path, key_values)
    _require_plausible(cursor, n_tensors, TENSORS, "tensors")
    infos = [_tensor_info(cursor) for _ in range(n_tensors)]
    _refuse_twice(cursor.path, "tensor", [name for name, _, _, _ in infos])
    data_offset = align(cursor.at, alignment)
    tensors = tuple(_placed(cursor, info, data_offset) for info in infos)
    return GgufHeader(cursor.path, version, alignment, key_values, tensors, data_offset, cursor.nbytes)


def _refuse_twice(path: Path, what: str, names: list[str]) -> None:
    """llama.cpp's reader refuses such a file too (gguf_init_from_file in gguf.cpp)."""
    twice = next((name for name, n in Counter(names).items() if n > 1 or not name), None)
    if twice is not None:
        raise ConverterError(
            f"{path}: {f'has the {what} {twice!r} twice' if twice else f'has a {what} without a name'}"
        )


def align(n: int, alignment: int) -> int:
    """``n`` rounded up to a multiple of ``alignment``."""
    return -(-n // alignment) * alignment


def _require_plausible(cursor: _Cursor, n: int, most: int, what: str) -> None:
    """Every entry takes at least 8 bytes: a count that the file can't hold must not become a long loop."""
    if n * 8 > cursor.nbytes:
        raise ConverterError(f"{cursor.path}: claims {n} {what}, more than the file can hold")
    if n > most:
        raise ConverterError(f"{cursor.path}: claims {n} {what} (at most {most})")


def _key_value(cursor: _Cursor) -> KeyValue:
    begin = cursor.at
    key = cursor.string()
    value_type = int(cursor.scalar(UINT32))
    value = _value(cursor, value_type, key)
    return KeyValue(key, value_type, value, begin, cursor.at)


def _value(cursor: _Cursor, value_type: int, key: str) -> Scalar | GgufArray:
    if value_type == STRING:
        return cursor.string()
    if value_type == ARRAY:
        return _array(cursor, key)
    if value_type in _SCALARS:
        return cursor.scalar(value_type)
    raise ConverterError(f"{cursor.path}: key {key!r} has the unknown value type {value_type}")


def _array(cursor: _Cursor, key: str) -> GgufArray:
    element_type, n = int(cursor.scalar(UINT32)), cursor.count()
    begin = cursor.at
    if element_type in _SCALARS:
        cursor.skip(n * _SCALARS[element_type].size)
    elif element_type == STRING:
        _require_plausible(cursor, n, METADATA_STRINGS, f"strings in {key!r}")
        _skip_strings(cursor, n)
    else:  # an array of arrays is legal, unused, and refused by llama.cpp too
        raise ConverterError(f"{cursor.path}: array {key!r} has the type {element_type}, which is not read")
    return GgufArray(element_type, n, begin, cursor.at - begin)


def _skip_strings(cursor: _Cursor, n: int) -> None:
    # The hot loop of the scan (a vocabulary has 262,144 tokens), so it runs on local names.
    data, at, limit, unpack = cursor.data, cursor.at, len(cursor.data) - 8, _SCALARS[UINT64].unpack_from
    for _ in range(n):
        if at > limit:
            cursor.load(at + 8)
            limit = len(data) - 8
        at += 8 + unpack(data, at)[0]
    cursor.skip(at - cursor.at)


def _alignment(path: Path, key_values: tuple[KeyValue, ...]) -> int:
    value = next((e.value for e in key_values if e.key == "general.alignment"), DEFAULT_ALIGNMENT)
    # ggml's reader wants a power of two (gguf.cpp); a multiple of 8 is the format's own rule.
    if not isinstance(value, int) or value < 8 or value & (value - 1):
        raise ConverterError(f"{path}: general.alignment is {value!r}, wanted a power of two from 8")
    return value


_Info = tuple[str, tuple[int, ...], GgmlType, int]


def _tensor_info(cursor: _Cursor) -> _Info:
    name = cursor.string()
    n_dims = int(cursor.scalar(UINT32))
    if n_dims > _MAX_DIMS:
        raise ConverterError(f"{cursor.path}: tensor {name!r} has {n_dims} dimensions (at most {_MAX_DIMS})")
    shape = tuple(reversed([cursor.count() for _ in range(n_dims)]))
    type_id = int(cursor.scalar(UINT32))
    if type_id not in GGML_BY_ID:
        raise ConverterError(
            f"{cursor.path}: tensor {name!r} has the GGML type {type_id}, which this version doesn't know"
        )
    return name, shape, GGML_BY_ID[type_id], cursor.count()


def _placed(cursor: _Cursor, info: _Info, data_offset: int) -> GgufTensor:
    name, shape, ggml_type, relative = info
    n_columns = shape[-1] if shape else 1
    if not ggml_type.fits(n_columns):
        raise ConverterError(
            f"{cursor.path}: tensor {name!r} is {ggml_type.name} with rows of {n_columns} elements, "
            f"wanted a multiple of {ggml_type.block_size}"
        )
    offset, nbytes = data_offset + relative, ggml_type.nbytes(shape)
    if offset + nbytes > cursor.nbytes:
        raise ConverterError(
            f"{cursor.path}: tensor {name!r} ends at byte {offset + nbytes}, the file has {cursor.nbytes}; "
            "it is truncated: copy or download it again"
        )
    return GgufTensor(name, shape, ggml_type, offset, nbytes)


def read_strings(path: Path, array: GgufArray) -> Iterator[str]:
    """The strings of a metadata array, read from the file when asked for."""
    for element in raw_elements(path, array):
        yield element[8:].decode("utf-8", errors="surrogateescape")


def raw_elements(path: Path, array: GgufArray) -> list[bytes]:
    """The elements of a metadata array, each as it is stored; a string with its length before it.

    Raises ConverterError where the file can't be read any more.
    """
    data = read_bytes(path, array.offset, array.nbytes)
    if array.element_type != STRING:
        size = _SCALARS[array.element_type].size
        return [data[at : at + size] for at in range(0, len(data), size)]
    elements, at, unpack = [], 0, _SCALARS[UINT64].unpack_from
    for _ in range(array.n):
        end = at + 8 + unpack(data, at)[0]
        elements.append(data[at:end])
        at = end
    return elements


def scalar_bytes(value_type: int, value: float) -> bytes:
    """A number as metadata store it."""
    return _SCALARS[value_type].pack(value)


def scalars_bytes(value_type: int, values: Sequence[float]) -> bytes:
    """Numbers as metadata store them."""
    return struct.pack(f"<{len(values)}{_SCALARS[value_type].format[-1]}", *values)


def read_scalars(path: Path, array: GgufArray) -> tuple[int | float | bool, ...]:
    """The numbers of a metadata array."""
    data = read_bytes(path, array.offset, array.nbytes)
    return tuple(value for (value,) in _SCALARS[array.element_type].iter_unpack(data))
