"""The cells of a manifest, each with its line, whichever of three forms it has: CSV, JSON lines or Parquet.

A manifest is input like any other: a regular file up to a limit, with so many rows, and no cell longer than a path.
"""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from converter.errors import ConverterError, how_to_install
from converter.read.files import could_not_read, open_regular
from converter.read.limits import CELL_LENGTH, MANIFEST_NBYTES, MANIFEST_ROWS

Value = str | bool | None


class Line(NamedTuple):
    """One row of a manifest by its columns. ``where`` names the file and the line, of Parquet the row."""

    where: str
    cells: Mapping[str, Value]


def read_lines(path: Path, columns: frozenset[str]) -> Iterator[Line]:
    """The rows of a manifest, whose columns are some of ``columns``.

    Raises ConverterError, status 2, naming file, line and column, where it is anything else.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ConverterError(f"{path}: is no manifest by its name; wanted {', '.join(_READERS)}, or a directory")
    for number, line in enumerate(reader(path, columns), 1):
        if number > MANIFEST_ROWS:
            raise ConverterError(f"{path}: has more than {MANIFEST_ROWS} rows; split it")
        yield line._replace(cells={name: _cell(line.where, name, value) for name, value in line.cells.items()})


def _cell(where: str, column: str, value: object) -> Value:
    """A cell as it stands; an empty one is None."""
    if value is not None and not isinstance(value, str | bool):
        raise ConverterError(f"{where}: column {column!r} is {_kind(value)}, wanted a text")
    if isinstance(value, str):
        if len(value) > CELL_LENGTH:
            raise ConverterError(f"{where}: column {column!r} has {len(value)} characters (at most {CELL_LENGTH})")
        if "\0" in value or not value.isprintable():
            raise ConverterError(f"{where}: column {column!r} holds {value!r}, wanted characters that can be printed")
    return None if value == "" else value


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", int: "a number", float: "a number"}
    return kinds.get(type(value), f"of type {type(value).__name__}")


def _refuse_unknown(where: str, found: Iterable[str], columns: frozenset[str]) -> None:
    found = tuple(found)
    for name in found:
        if name not in columns:
            raise ConverterError(f"{where}: column {name[:100]!r} is unknown; wanted {', '.join(sorted(columns))}")
        if found.count(name) > 1:
            raise ConverterError(f"{where}: column {name!r} is there twice")
    if "adapter" not in found:
        raise ConverterError(f"{where}: has no column 'adapter'; found {', '.join(map(repr, found[:10])) or 'none'}")


def _text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file that hold anything, and how messages call them; one is in memory at a time."""
    with could_not_read(path), open_regular(path) as file:
        _refuse_large(path, os.fstat(file.fileno()).st_size)
        for number, raw in enumerate(iter(lambda: file.readline(_LINE_NBYTES + 1), b""), 1):
            where = f"{path}: line {number}"
            if len(raw) > _LINE_NBYTES:
                raise ConverterError(f"{where}: is longer than {_LINE_NBYTES} bytes")
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ConverterError(f"{where}: not UTF-8 (at byte {error.start}); save it as UTF-8") from error
            if text.strip():
                yield where, text


def _refuse_large(path: Path, nbytes: int) -> None:
    if nbytes > MANIFEST_NBYTES:
        raise ConverterError(f"{path}: has {nbytes} bytes (at most {MANIFEST_NBYTES}); split it")


def _csv_lines(path: Path, columns: frozenset[str]) -> Iterator[Line]:
    """A row a line: no path that may stand in a cell goes over several."""
    lines = ((where, _csv_cells(where, text)) for where, text in _text_lines(path))
    where, header = next(lines, (f"{path}: line 1", []))
    header = [name.strip() for name in header]
    _refuse_unknown(where, header, columns)
    for where, cells in lines:
        if len(cells) != len(header):
            raise ConverterError(f"{where}: has {len(cells)} cells, wanted {len(header)}: {', '.join(header)}")
        yield Line(where, dict(zip(header, cells, strict=True)))


def _csv_cells(where: str, text: str) -> list[str]:
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise ConverterError(f"{where}: is no CSV: {error}") from error


def _json_lines(path: Path, columns: frozenset[str]) -> Iterator[Line]:
    for where, text in _text_lines(path):
        pairs = _pairs(where, text)
        _refuse_unknown(where, (name for name, _ in pairs), columns)
        yield Line(where, dict(pairs))


class _Pairs(list[tuple[str, Any]]):
    """The members of an object in their order, so that one which is there twice is seen."""


def _pairs(where: str, text: str) -> _Pairs:
    try:
        found = json.loads(text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise ConverterError(f"{where}: column {error.colno} of the text: is no JSON: {error.msg}") from error
    except (RecursionError, ValueError) as error:
        raise ConverterError(f"{where}: is no JSON that can be read: {error}") from error
    if not isinstance(found, _Pairs):
        raise ConverterError(f"{where}: is {_kind(found)}, wanted an object a line")
    return found


def _parquet_lines(path: Path, columns: frozenset[str]) -> Iterator[Line]:
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ConverterError(f"{path}: pyarrow missing; {how_to_install('fleet')}") from error
    try:
        with could_not_read(path), open_regular(path) as raw, ParquetFile(raw) as file:
            _refuse_large(path, os.fstat(raw.fileno()).st_size)
            _refuse_large(path, sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups)))
            _refuse_unknown(str(path), file.schema_arrow.names, columns)
            for name, kind in zip(file.schema_arrow.names, file.schema_arrow.types, strict=True):
                if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)):
                    raise ConverterError(f"{path}: column {name!r} is of type {kind}, wanted string")
            rows = (row for batch in file.iter_batches(_BATCH) for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield Line(f"{path}: row {number}", row)
    except pa.ArrowException as error:
        raise ConverterError(f"{path}: is no Parquet that can be read: {' '.join(str(error).split())[:200]}") from error


_LINE_NBYTES: Final = 16 * CELL_LENGTH
_BATCH: Final = 1_000  # rows that are decoded at a time
_READERS: Final[dict[str, Callable[[Path, frozenset[str]], Iterator[Line]]]] = {
    ".csv": _csv_lines,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet_lines,
}
