"""A manifest's rows of the table as CSV or Parquet, for programs that read no SQLite."""

import csv
import io
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from converter.errors import ConverterError
from converter.fleet.rows import Row
from converter.fleet.table import Table
from converter.writing.whole_file import whole_file

COLUMNS: Final = (
    "place", "adapter", "base", "deployment", "output", "state", "status", "message", "codes", "warnings", "nbytes",
    "adapter_sha256", "effect_ratio", "pushed", "node", "seconds", "at",
)  # fmt: skip
_INTEGERS: Final = {"status", "nbytes"}
_NUMBERS: Final = {"effect_ratio", "seconds"}
_BATCH: Final = 1_000
ENDINGS: Final = (".csv", ".parquet")


def check_export(path: Path) -> None:
    """Raise ConverterError where a name isn't that of a format. Call it before the run."""
    if path.suffix not in ENDINGS:
        raise ConverterError(f"{path}: can't be exported to by its name; wanted {' or '.join(ENDINGS)}")


def write_export(path: Path, table: Table, rows: Sequence[Row]) -> None:
    """Write the rows to ``path``, whole or not at all."""
    (_write_csv if path.suffix == ".csv" else _write_parquet)(path, table, rows)


def _write_csv(path: Path, table: Table, rows: Sequence[Row]) -> None:
    with whole_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table.lines(row.output for row in rows))
        text.detach()


def _write_parquet(path: Path, table: Table, rows: Sequence[Row]) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    schema = pa.schema([(name, _type(pa, name)) for name in COLUMNS])
    lines = ({name: line[name] for name in COLUMNS} for line in table.lines(row.output for row in rows))
    with whole_file(path) as file, ParquetWriter(file, schema) as writer:
        while batch := list(islice(lines, _BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema))


def _type(pa: Any, name: str) -> Any:
    if name in _INTEGERS:
        return pa.int64()
    return pa.float64() if name in _NUMBERS else pa.string()
