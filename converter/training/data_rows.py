"""The rows of one file of samples, each an object of its columns, as they stand: no type is guessed."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

from converter.errors import ConverterError
from converter.read.files import Unreadable, open_regular
from converter.read.limits import DATA_NBYTES
from converter.training.data_files import Format, format_of

_PIECE_NBYTES: Final = 1 << 24
Row = dict[str, Any]
NumberedRow = tuple[int, Row]


def read_rows(path: Path) -> list[NumberedRow]:
    """The rows of a file and their numbers, by which messages name them: of lines in a text file.

    Raises ConverterError where it can't be read as what its name says.
    """
    try:
        return list(_READERS[format_of(path) or "text"](path))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConverterError(f"{path}: can't be read: line {line} is not UTF-8; save it as UTF-8") from error
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error
    except Unreadable as error:
        raise ConverterError(f"{path}: {error}") from error
    except (EOFError, zlib.error, lzma.LZMAError, csv.Error, ValueError) as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, why: str) -> ConverterError:
    return ConverterError(f"{path}: can't be read: {' '.join(why.split())}")


def _text(path: Path) -> str:
    """The whole file, uncompressed; editors on Windows begin a file with a byte order mark."""
    data = bytearray()
    with _opened(path) as raw, _uncompressed(path, raw) as file:
        while piece := file.read(_PIECE_NBYTES):  # a read of all that may come would take the memory for it
            data += piece
            _require_size(len(data))
    return data.decode("utf-8-sig")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with open_regular(path) as raw:
        _require_size(os.fstat(raw.fileno()).st_size)
        yield raw


def _require_size(nbytes: int) -> None:
    if nbytes > DATA_NBYTES:
        raise Unreadable(f"holds more than {DATA_NBYTES} bytes; divide it into several files of one directory")


def _uncompressed(path: Path, raw: BinaryIO) -> Any:
    match path.suffix:
        case ".gz":
            return gzip.open(raw)
        case ".bz2":
            return bz2.open(raw)
        case ".xz":
            return lzma.open(raw)
        case ".zst":
            import pyarrow as pa

            return pa.CompressedInputStream(raw, "zstd")
        case _:
            return raw


def _json_rows(path: Path) -> Iterator[NumberedRow]:
    """A list of objects, or an object a line."""
    text = _text(path)
    rows = _list_rows(text) if text.lstrip().startswith("[") else _line_rows(text)
    for number, (row, where) in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise _unreadable(path, f"{where} is no object; wanted a list of objects, or one object a line")
        yield number, row


def _list_rows(text: str) -> Iterator[tuple[Any, str]]:
    rows = _parsed(text, 1)
    return ((row, f"sample {number}") for number, row in enumerate(rows, 1))


def _line_rows(text: str) -> Iterator[tuple[Any, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _parsed(line, number), f"line {number}"


def _parsed(text: str, first_line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        raise ValueError(f"line {line} is no JSON ({error.msg} in column {error.colno})") from error
    except RecursionError as error:
        raise ValueError(f"line {first_line} is nested too deeply") from error


def _csv_rows(path: Path) -> Iterator[NumberedRow]:
    """Every cell is text as it stands: "NA" is no missing value, and 007 no number."""
    csv.field_size_limit(sys.maxsize)  # a sample may be long; the limit is the whole process's
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    reader = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
    header = next(reader, None)
    if not header:
        raise ValueError("has no line of column names")
    if len(set(header)) < len(header):
        raise ValueError("has two columns of one name")
    for number, cells in enumerate((cells for cells in reader if cells), 1):
        if len(cells) != len(header):
            raise ValueError(f"line {reader.line_num} has {len(cells)} cells, wanted {len(header)}")
        yield number, dict(zip(header, cells, strict=True))


def _parquet_rows(path: Path) -> Iterable[NumberedRow]:
    from pyarrow.parquet import ParquetFile

    # The file alone: a data set would take columns from its folders' names.
    with _opened(path) as raw, ParquetFile(raw) as file:
        groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        _require_size(sum(group.total_byte_size for group in groups))
        return enumerate(file.read().to_pylist(), 1)


def _text_rows(path: Path) -> Iterator[NumberedRow]:
    """A sample a line; empty lines are none."""
    for number, line in enumerate(io.StringIO(_text(path), newline=None), 1):
        if line.strip():
            yield number, {"text": line.removesuffix("\n")}


_READERS: Final[dict[Format, Callable[[Path], Iterable[NumberedRow]]]] = {
    "json": _json_rows,
    "csv": _csv_rows,
    "parquet": _parquet_rows,
    "text": _text_rows,
}
