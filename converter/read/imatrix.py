"""An importance matrix as llama-imatrix saved it: where each tensor's numbers lie. None of them is read.

Two formats, as llama.cpp's common/imatrix-loader.cpp reads them: a GGUF with ``NAME.in_sum2`` and ``NAME.counts``, and
the older binary one: a count of entries, then of each its name, a number of calls, and the values.
"""

import os
import struct
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Final, NamedTuple

from converter.errors import ConverterError
from converter.read.files import could_not_read, open_regular
from converter.read.gguf_header import MAGIC, GgufArray, GgufHeader, GgufTensor, read_gguf_header, read_strings
from converter.read.limits import KEY_LENGTH, TENSORS
from converter.read.stored import StoredTensor

_SUMS: Final = ".in_sum2"
_COUNTS: Final = ".counts"
_PATH_NBYTES: Final = 4096  # what the older form keeps of the texts is their path
_KEYS: Final = ("imatrix.datasets", "imatrix.chunk_count", "imatrix.chunk_size")


class Importance(NamedTuple):
    """What an imatrix says of a tensor's columns: sums of squared activations, to be divided by counts.

    ``sums`` (n,) in F32, one matrix after the other; ``counts`` (m,) of F32, one for each matrix, or one number for
    all. ``columns`` are the begin and end of those that are meant.
    """

    sums: StoredTensor
    counts: StoredTensor | int
    columns: tuple[int, int]

    def of_matrix(self, i: int, n_matrices: int) -> "Importance":
        """That of one of a tensor's matrices."""
        begin, n = self.columns[0], (self.columns[1] - self.columns[0]) // n_matrices
        return self._replace(columns=(begin + i * n, begin + (i + 1) * n))


class Imatrix(NamedTuple):
    """An importance matrix: entries by tensor, the texts it was made with, of how many chunks (0: it doesn't say)."""

    path: Path
    entries: Mapping[str, Importance]
    dataset: str | None
    n_chunks: int


def read_imatrix(path: Path) -> Imatrix:
    """Read an imatrix file's table. Raises ConverterError, status 2, where it is none, or damaged."""
    with could_not_read(path), open_regular(path) as file:
        if file.read(len(MAGIC)) != MAGIC:
            file.seek(0)
            return _of_binary(path, file)
    return _of_gguf(read_gguf_header(path))


def _of_gguf(header: GgufHeader) -> Imatrix:
    kv, tensors = header.kv, header.by_name
    missing = [key for key in _KEYS if key not in kv]
    if missing:
        raise ConverterError(f"{header.path}: is no imatrix: it has no {missing[0]}; make one with llama-imatrix")
    names = [name.removesuffix(_SUMS) for name in tensors if name.endswith(_SUMS)]
    entries = {name: _entry(header.path, tensors, name) for name in names}
    datasets, n_chunks = kv[_KEYS[0]], kv[_KEYS[1]]
    first = next(read_strings(header.path, datasets), None) if isinstance(datasets, GgufArray) else None
    return _checked(Imatrix(header.path, entries, first, n_chunks if isinstance(n_chunks, int) else 0))


def _entry(path: Path, tensors: Mapping[str, GgufTensor], name: str) -> Importance:
    sums, counts = tensors[name + _SUMS], tensors.get(name + _COUNTS)
    if counts is None or {sums.type.name, counts.type.name} != {"F32"}:
        raise ConverterError(f"{path}: {name}: wanted sums and counts of F32; the imatrix is damaged, make it again")
    stored = [StoredTensor(path, t.offset, t.nbytes, (t.nbytes // 4,), "F32") for t in (sums, counts)]
    (n,), (m,) = stored[0].shape, stored[1].shape
    if not n or not m or n % m:
        raise ConverterError(f"{path}: {name}: {n} sums and {m} counts don't fit; make the imatrix again")
    return Importance(stored[0], stored[1], (0, n))


def _of_binary(path: Path, file: BufferedReader) -> Imatrix:
    nbytes = os.fstat(file.fileno()).st_size
    n_entries = _number(file, path)
    if not 1 <= n_entries <= TENSORS:
        raise _no_imatrix(path)
    entries: dict[str, Importance] = {}
    for _ in range(n_entries):
        name = _text(file, path)
        n_calls, n = _number(file, path), _number(file, path)
        begin = file.tell()
        if n < 1 or begin + 4 * n > nbytes:
            raise _no_imatrix(path)
        entries[name] = Importance(StoredTensor(path, begin, 4 * n, (n,), "F32"), n_calls, (0, n))
        file.seek(4 * n, os.SEEK_CUR)
    n_chunks = _number(file, path) if file.tell() < nbytes else 0
    dataset = _text(file, path, at_most=_PATH_NBYTES) if file.tell() < nbytes else ""
    return _checked(Imatrix(path, entries, dataset or None, n_chunks))


def _number(file: BufferedReader, path: Path) -> int:
    data = file.read(4)
    if len(data) < 4:
        raise _no_imatrix(path)
    number: int = struct.unpack("<i", data)[0]
    return number


def _text(file: BufferedReader, path: Path, at_most: int = KEY_LENGTH) -> str:
    n = _number(file, path)
    if not 0 <= n <= at_most:
        raise _no_imatrix(path)
    data = file.read(n)
    if len(data) < n:
        raise _no_imatrix(path)
    return data.partition(b"\0")[0].decode("utf-8", errors="surrogateescape")


def _checked(imatrix: Imatrix) -> Imatrix:
    if not imatrix.entries:
        raise _no_imatrix(imatrix.path)
    return imatrix


def _no_imatrix(path: Path) -> ConverterError:
    return ConverterError(f"{path}: is no imatrix, or truncated; make one with llama-imatrix")
