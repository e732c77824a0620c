"""The cells of a manifest, each with its line, whichever of three forms it has: CSV, JSON lines or Parquet.

A manifest is input like any other: a regular file up to a limit, with so many rows, and no cell longer than a path.
"""

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from converter.errors import ConverterError, how_to_install
from converter.read.files import could_not_read, open_regular
from converter.read.limits import CELL_LENGTH, MANIFEST_NBYTES, MANIFEST_ROWS

Value = str | bool | None
_Found = tuple[str, Mapping[str, object]]  # how messages call a line, and its cells as they stand
T = TypeVar("T")


class Line(NamedTuple):
    """One row of a manifest by its columns. ``where`` names the file and the line, of Parquet the row."""

    where: str
    cells: Mapping[str, Value]


def read_lines(path: Path, columns: frozenset[str]) -> tuple[Line, ...]:
    """The rows of a manifest, whose columns are some of ``columns``.

    Raises ConverterError, status 2, naming file, line and column, where it is anything else.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ConverterError(f"{path}: is no manifest by its name; wanted {', '.join(_READERS)}, or a directory")
    return tuple(
        Line(where, {name: _cell(where, name, value) for name, value in cells.items()})
        for where, cells in reader(path, columns)
    )


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


def _text_lines(path: Path, most: int) -> list[tuple[str, str]]:
    """The lines of a text file that hold anything, of which there may be ``most``, and how messages call them."""
    with could_not_read(path), open_regular(path) as file:
        _refuse_large(path, os.fstat(file.fileno()).st_size)
        raw_lines = enumerate(_up_to(path, iter(lambda: file.readline(_LINE_NBYTES + 1), b""), _LINES), 1)
        lines = ((f"{path}: line {number}", raw) for number, raw in raw_lines if raw.strip() or len(raw) > _LINE_NBYTES)
        return [(where, _decoded(where, raw)) for where, raw in _up_to(path, lines, most)]


def _decoded(where: str, raw: bytes) -> str:
    if len(raw) > _LINE_NBYTES:
        raise ConverterError(f"{where}: is longer than {_LINE_NBYTES} bytes")
    try:
        return raw.decode("utf-8-sig").rstrip("\r\n")  # editors on Windows begin a file with a mark
    except UnicodeDecodeError as error:
        raise ConverterError(f"{where}: not UTF-8 (at byte {error.start}); save it as UTF-8") from error


def _up_to(path: Path, things: Iterable[T], most: int) -> Iterator[T]:
    for number, thing in enumerate(things):
        if number == most:
            raise ConverterError(f"{path}: has more than {MANIFEST_ROWS} rows; split it")
        yield thing


def _refuse_large(path: Path, nbytes: int) -> None:
    if nbytes > MANIFEST_NBYTES:
        raise ConverterError(f"{path}: has {nbytes} bytes (at most {MANIFEST_NBYTES}); split it")


def _csv_lines(path: Path, columns: frozenset[str]) -> Iterator[_Found]:
    """A row a line: no path that may stand in a cell goes over several."""
    (where, first), *lines = _text_lines(path, MANIFEST_ROWS + 1) or [(f"{path}: line 1", "")]
    header = [name.strip() for name in _csv_cells(where, first)]
    _refuse_unknown(where, header, columns)
    for where, text in lines:
        cells = _csv_cells(where, text)
        if len(cells) != len(header):
            raise ConverterError(f"{where}: has {len(cells)} cells, wanted {len(header)}: {', '.join(header)}")
        yield where, dict(zip(header, cells, strict=True))


def _csv_cells(where: str, text: str) -> list[str]:
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise ConverterError(f"{where}: is no CSV: {error}") from error


def _json_lines(path: Path, columns: frozenset[str]) -> Iterator[_Found]:
    for where, text in _text_lines(path, MANIFEST_ROWS):
        pairs = _pairs(where, text)
        _refuse_unknown(where, (name for name, _ in pairs), columns)
        yield where, dict(pairs)


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


def _parquet_lines(path: Path, columns: frozenset[str]) -> list[_Found]:
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile, read_schema
    except ImportError as error:
        raise ConverterError(f"{path}: pyarrow missing; {how_to_install('fleet')}") from error
    try:
        with could_not_read(path), open_regular(path) as raw:
            _refuse_large(path, os.fstat(raw.fileno()).st_size)
            names = _parquet_columns(path, read_schema(raw), columns)
            # A text that stands in many rows is then held once, however long it is.
            with ParquetFile(raw, read_dictionary=names) as file:
                sizes = (file.metadata.row_group(number).total_byte_size for number in range(file.num_row_groups))
                _refuse_large(path, sum(sizes))
                rows = _up_to(path, _parquet_rows(path, file), MANIFEST_ROWS)
                return [(f"{path}: row {number}", row) for number, row in enumerate(rows, 1)]
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ConverterError(f"{path}: is no Parquet that can be read: {' '.join(str(error).split())[:200]}") from error


def _parquet_columns(path: Path, schema: Any, columns: frozenset[str]) -> list[str]:
    import pyarrow as pa

    _refuse_unknown(str(path), schema.names, columns)
    for name, kind in zip(schema.names, schema.types, strict=True):
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)):
            raise ConverterError(f"{path}: column {name!r} is of type {kind}, wanted string")
    return list(schema.names)


def _parquet_rows(path: Path, file: Any) -> Iterator[dict[str, object]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    for batch in file.iter_batches(_BATCH):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if pa.types.is_dictionary(column.type):
                longest = pc.max(pc.binary_length(column.dictionary)).as_py() or 0
                if longest > 4 * CELL_LENGTH:  # bytes of UTF-8
                    raise ConverterError(f"{path}: column {name!r} has a cell of {longest} bytes; no path is that long")
        yield from batch.to_pylist()


_LINES: Final = 3 * MANIFEST_ROWS  # empty ones too
_LINE_NBYTES: Final = 16 * CELL_LENGTH
_BATCH: Final = 1_000  # rows that are decoded at a time
_READERS: Final[dict[str, Callable[[Path, frozenset[str]], Iterable[_Found]]]] = {
    ".csv": _csv_lines,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet_lines,
}
