"""Writes one planned GGUF: header, metadata, tensor table, then every tensor block by block.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Metadata of the base goes over as raw bytes, which no
writer library does; so the few lines of header are ours.
"""

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from operator import add
from pathlib import Path
from typing import Final

from converter.evaluation.compiled import compiled
from converter.planning.conversion_plan import (
    CopiedKeyValue,
    EditedArray,
    NewArray,
    NewKeyValue,
    NewScalar,
    PlannedFile,
    PlannedKeyValue,
    PlannedTensor,
    StoredNumbers,
)
from converter.read.files import Unreadable, open_regular, read_bytes
from converter.read.gguf_header import (
    ARRAY,
    BOOL,
    FLOAT32,
    MAGIC,
    STRING,
    UINT32,
    align,
    raw_elements,
    scalar_bytes,
    scalars_bytes,
)
from converter.sources import has_delta
from converter.values.rows import number_of
from converter.writing.blocks import Block, DeltaKept, Task, tasks
from converter.writing.in_order import in_order, n_threads
from converter.writing.outputs import Sink

VERSION: Final = 3

_WRITE_NBYTES: Final = 1 << 18  # Linux takes three times the CPU to find pages for a write of 1 MB

Progress = Callable[[int], None]


def write_gguf(file: PlannedFile, out: Sink, progress: Progress) -> tuple[DeltaKept, ...]:
    """Write ``file`` to ``out``, calling ``progress`` with each count of bytes written.

    Returns what each merged tensor kept of its delta. Raises ConverterError where a source can't be read or a value
    doesn't fit, OSError where ``out`` can't be written.
    """
    return write_ggufs([(file, out)], progress)


def write_ggufs(files: Sequence[tuple[PlannedFile, Sink]], progress: Progress) -> tuple[DeltaKept, ...]:
    """Write files one after the other, as ``write_gguf`` writes one."""
    tensors = [tensor for file, _ in files for tensor in file.tensors]
    with closing(in_order(_tasks(tensors), n_threads())) as made:
        kept = [delta for file, out in files for delta in _write(file, out, made, progress)]
    return tuple(delta for delta, tensor in zip(kept, tensors, strict=True) if has_delta(tensor.source))


def _tasks(tensors: Sequence[PlannedTensor]) -> Iterator[Task]:
    fast = compiled()
    for tensor in tensors:
        yield from tasks(tensor, fast=fast)


def _write(file: PlannedFile, out: Sink, made: Iterator[Block], progress: Progress) -> Iterator[DeltaKept]:
    written = out.write(_header(file))
    written += out.write(bytes(align(written, file.alignment) - written))
    for tensor in file.tensors:
        yield _written(tensor, made, out, progress, file.alignment)


def _written(tensor: PlannedTensor, made: Iterator[Block], out: Sink, progress: Progress, alignment: int) -> DeltaKept:
    kept, left = DeltaKept(tensor.name), tensor.nbytes
    while left > 0:
        block = next(made)
        for part in _parts(block.data):
            left -= (written := out.write(part))
            progress(written)
        kept.add(block.sums)
    out.write(bytes(align(tensor.nbytes, alignment) - tensor.nbytes))
    return kept


def _parts(data: bytes | memoryview) -> Iterator[memoryview]:
    whole = memoryview(data)
    return (whole[begin : begin + _WRITE_NBYTES] for begin in range(0, len(whole), _WRITE_NBYTES))


def gguf_nbytes(file: PlannedFile) -> int:
    """The size that ``file`` will have."""
    header = len(_start(file)) + sum(map(_key_value_nbytes, file.key_values)) + len(_tensor_table(file))
    return align(header, file.alignment) + file.nbytes


def is_written(file: PlannedFile, path: Path) -> bool:
    """Whether a file of its size and with its header lies at ``path``; the tensors' bytes are not compared."""
    header = _header(file)
    try:
        with open_regular(path) as found:
            nbytes = os.fstat(found.fileno()).st_size
            return nbytes == gguf_nbytes(file) and found.read(len(header)) == header
    except (OSError, Unreadable):
        return False


def _header(file: PlannedFile) -> bytes:
    return _start(file) + b"".join(map(_key_value, file.key_values)) + _tensor_table(file)


def _start(file: PlannedFile) -> bytes:
    return MAGIC + struct.pack("<IQQ", VERSION, len(file.tensors), len(file.key_values))


def _key_value_nbytes(entry: PlannedKeyValue) -> int:
    if isinstance(entry, NewArray) and entry.element_type == STRING:  # a vocabulary, whose bytes are made once
        texts = "".join(map(str, entry.values)).encode(errors="surrogateescape")
        return len(_array_start(entry)) + 8 * len(entry.values) + len(texts)
    return len(_key_value(entry))


def _key_value(entry: PlannedKeyValue) -> bytes:
    match entry:
        case CopiedKeyValue():
            return _copied(entry)
        case EditedArray():
            return _edited(entry)
        case NewArray():
            return _array(entry)
        case StoredNumbers(key, _, tensors):
            return _array(NewArray(key, FLOAT32, tuple(map(number_of, tensors))))
        case NewKeyValue(key, value):
            return _string(key) + _new_value(value)
        case NewScalar(key, value_type, value):
            return _string(key) + struct.pack("<I", value_type) + scalar_bytes(value_type, value)


def _new_value(value: str | float | tuple[int, ...]) -> bytes:
    """A value's type, and the value."""
    match value:
        case str(text):
            return struct.pack("<I", STRING) + _string(text)
        case bool(flag):
            return struct.pack("<I?", BOOL, flag)
        case int(number):
            return struct.pack("<II", UINT32, number)
        case tuple(numbers):
            return struct.pack(f"<IIQ{len(numbers)}I", ARRAY, UINT32, len(numbers), *numbers)
        case number:
            return struct.pack("<If", FLOAT32, number)


def _array(entry: NewArray) -> bytes:
    return _array_start(entry) + _elements(entry)


def _array_start(entry: NewArray) -> bytes:
    return _string(entry.key) + struct.pack("<IIQ", ARRAY, entry.element_type, len(entry.values))


def _elements(entry: NewArray) -> bytes:
    """A vocabulary has a hundred thousand of them and more."""
    if entry.element_type != STRING:
        return scalars_bytes(entry.element_type, [n for n in entry.values if not isinstance(n, str)])
    texts = [str(value).encode(errors="surrogateescape") for value in entry.values]
    lengths = {n: struct.pack("<Q", n) for n in set(map(len, texts))}
    return b"".join(map(add, map(lengths.__getitem__, map(len, texts)), texts))


def _edited(entry: EditedArray) -> bytes:
    element_type = entry.array.element_type
    elements = raw_elements(entry.path, entry.array)[: entry.n]
    elements += [b""] * (entry.n - len(elements))
    for index, value in entry.changes:
        elements[index] = _string(value) if isinstance(value, str) else scalar_bytes(element_type, value)
    return _string(entry.key) + struct.pack("<IIQ", ARRAY, element_type, entry.n) + b"".join(elements)


def _copied(entry: CopiedKeyValue) -> bytes:
    return read_bytes(entry.path, entry.entry.begin, entry.entry.end - entry.entry.begin)


def _string(text: str) -> bytes:
    data = text.encode(errors="surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _tensor_table(file: PlannedFile) -> bytes:
    table, offset = [], 0
    for tensor in file.tensors:
        table.append(_tensor_info(tensor, offset))
        offset += align(tensor.nbytes, file.alignment)
    return b"".join(table)


def _tensor_info(tensor: PlannedTensor, offset: int) -> bytes:
    n_dims = len(tensor.shape)
    ne = struct.pack(f"<I{n_dims}Q", n_dims, *reversed(tensor.shape))
    return _string(tensor.name) + ne + struct.pack("<IQ", tensor.type.id, offset)
