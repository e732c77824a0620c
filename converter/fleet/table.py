"""What came of every adapter, in one SQLite table that a second run resumes from. docs/fleet.md has the schema.

Only the driver writes it, under a lock that the kernel drops with the process. In WAL mode a killed driver loses no
row, and others may read while it runs: https://sqlite.org/wal.html
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from converter.errors import ConverterError
from converter.fleet.stamps import Stamp, Stamps
from converter.fleet.task import Outcome, Reading, State, Task
from converter.report.printable import printable

_APPLICATION: Final = 0x61326666  # in SQLite's header: whose file it is
_VERSION: Final = 1
_MESSAGE_LENGTH: Final = 2_000
_SCHEMA: Final = """
CREATE TABLE adapters (
    output TEXT PRIMARY KEY,    -- absolute path
    place TEXT NOT NULL,        -- the row's file and line
    adapter TEXT NOT NULL,
    base TEXT NOT NULL,
    deployment TEXT NOT NULL,   -- lora, model, untie-lora, untie-model
    request TEXT NOT NULL,      -- JSON: all that was asked, the tool's version included
    state TEXT NOT NULL,        -- fine, refused, unproven, failed, missing
    status INTEGER NOT NULL,    -- the exit status of this adapter
    message TEXT NOT NULL DEFAULT '',
    codes TEXT NOT NULL DEFAULT '',     -- of the rules that refuse it
    warnings TEXT NOT NULL DEFAULT '',  -- codes of the rules that warn
    nbytes INTEGER NOT NULL DEFAULT 0,  -- of the output
    adapter_sha256 TEXT NOT NULL DEFAULT '',  -- as in the GGUF: adapter_to_gguf.adapter.sha256
    content_sha256 TEXT NOT NULL DEFAULT '',  -- of all files that the conversion may have read of the adapter
    effect_ratio REAL,          -- of --verify
    pushed TEXT,
    adopted INTEGER NOT NULL DEFAULT 0,
    reading TEXT NOT NULL DEFAULT '',   -- of the base, in the table bases
    node TEXT NOT NULL DEFAULT '',
    seconds REAL NOT NULL DEFAULT 0,
    at TEXT NOT NULL,           -- UTC
    adapter_stamps TEXT NOT NULL DEFAULT '[]',  -- JSON: name, bytes, and times of each file, in nanoseconds
    base_stamps TEXT NOT NULL DEFAULT '[]',
    output_stamps TEXT NOT NULL DEFAULT '[]'
);
CREATE TABLE started (          -- what workers have, or had when the driver ended
    output TEXT PRIMARY KEY,
    request TEXT NOT NULL,
    base_stamps TEXT NOT NULL,
    output_before TEXT NOT NULL -- what was at the output when it was first begun
);
CREATE TABLE bases (            -- a row for each reading of a base
    reading TEXT PRIMARY KEY,
    base TEXT NOT NULL,
    node TEXT NOT NULL,
    seconds REAL NOT NULL,
    at TEXT NOT NULL
);
"""


class Known(NamedTuple):
    """How an adapter ended the last time."""

    state: State
    base: str
    request: str
    content: str
    adapter_stamps: Stamps
    base_stamps: Stamps
    output_stamps: Stamps


class Table:
    """The table of a fleet, open for the one driver that writes it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def known(self, output: Path) -> Known | None:
        """How the adapter of this output ended the last time."""
        found = self._connection.execute(
            "SELECT state, base, request, content_sha256, adapter_stamps, base_stamps, output_stamps "
            "FROM adapters WHERE output = ?",
            (str(output),),
        )
        row = found.fetchone()
        return Known(*row[:4], *map(_stamps, row[4:])) if row else None

    def lines(self, outputs: Iterable[Path]) -> Iterator[dict[str, Any]]:
        """The rows of these outputs as they stand, by their columns; one that the table doesn't have is left out."""
        for output in outputs:
            cursor = self._connection.execute("SELECT * FROM adapters WHERE output = ?", (str(output),))
            for row in cursor:
                yield dict(zip((column[0] for column in cursor.description), row, strict=True))

    def readings(self) -> Counter[str]:
        """How often each base was read, over all runs."""
        return Counter(dict(self._connection.execute("SELECT base, count(*) FROM bases GROUP BY base")))

    def start(self, task: Task) -> Task:
        """Note down that a task goes to a worker. One that was begun before, and didn't end, is still the same one."""
        output, request, base = str(task.row.output), task.request, json.dumps(task.base_stamps)
        found = self._connection.execute(
            "SELECT request, base_stamps, output_before FROM started WHERE output = ?", (output,)
        )
        begun = found.fetchone()
        if begun and begun[:2] == (request, base):
            return task._replace(output_before=_stamps(begun[2]))
        with self._connection:
            self._connection.execute(
                "INSERT OR REPLACE INTO started VALUES (?, ?, ?, ?)",
                (output, request, base, json.dumps(task.output_before)),
            )
        return task

    def end(self, task: Task, outcome: Outcome) -> None:
        """Note down what came of a task."""
        output = str(task.row.output)
        with self._connection:
            self._connection.execute("DELETE FROM started WHERE output = ?", (output,))
            if outcome.unchanged:
                stamps = json.dumps(outcome.adapter_stamps)
                self._connection.execute("UPDATE adapters SET adapter_stamps = ? WHERE output = ?", (stamps, output))
            else:
                self._put(_columns(task, outcome))

    def _put(self, values: dict[str, object]) -> None:
        marks = ", ".join("?" * len(values))
        words = f"INSERT OR REPLACE INTO adapters ({', '.join(values)}) VALUES ({marks})"  # noqa: S608  our own words
        self._connection.execute(words, tuple(values.values()))

    def base_read(self, reading: Reading) -> None:
        """Note down one reading of a base."""
        with self._connection:
            self._connection.execute(
                "INSERT OR IGNORE INTO bases VALUES (?, ?, ?, ?, ?)",
                (reading.id, str(reading.base), reading.node, reading.seconds, _now()),
            )


def _columns(task: Task, outcome: Outcome) -> dict[str, object]:
    row = task.row
    return {
        "output": str(row.output),
        "place": row.where,
        "adapter": str(row.adapter),
        "base": str(task.base),
        "deployment": row.deployment.kind,
        "request": task.request,
        "state": outcome.state,
        "status": outcome.status,
        "message": printable(outcome.message)[:_MESSAGE_LENGTH],
        "codes": " ".join(outcome.codes),
        "warnings": " ".join(outcome.warnings),
        "nbytes": outcome.nbytes,
        "adapter_sha256": outcome.adapter_sha256,
        "content_sha256": outcome.content,
        "effect_ratio": outcome.effect_ratio,
        "pushed": outcome.pushed,
        "adopted": int(outcome.adopted),
        "reading": outcome.reading,
        "node": outcome.node,
        "seconds": outcome.seconds,
        "at": _now(),
        "adapter_stamps": json.dumps(outcome.adapter_stamps),
        "base_stamps": json.dumps(outcome.base_stamps),
        "output_stamps": json.dumps((*outcome.output_stamps, *outcome.untied)),
    }


@contextmanager
def opened(path: Path) -> Iterator[Table]:
    """The table at ``path``, made where there is none.

    Raises ConverterError where another driver has it, or where something else lies there.
    """
    from filelock import FileLock, Timeout

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock", timeout=0):
            connection = _connected(path)
            try:
                yield Table(connection)
            finally:
                connection.close()
    except Timeout as error:
        raise ConverterError(
            f"{path}: another adapter-fleet writes this table; wait, or give another --table"
        ) from error
    except sqlite3.Error as error:
        raise ConverterError(f"{path}: can't be used as a table: {error}") from error


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    try:
        _refuse_foreign(path, connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        connection.close()
        raise
    return connection


def _refuse_foreign(path: Path, connection: sqlite3.Connection) -> None:
    """A new database becomes ours; one that isn't stays as it is."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (n_tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application == version == n_tables == 0:
        connection.executescript(
            f"BEGIN; {_SCHEMA} PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {_VERSION}; COMMIT"
        )
    elif application != _APPLICATION:
        raise ConverterError(f"{path}: is a database of something else; give another --table")
    elif version != _VERSION:
        raise ConverterError(f"{path}: is a table of version {version}, wanted {_VERSION}; give another --table")


def _stamps(text: str) -> Stamps:
    return tuple(Stamp(*stamp) for stamp in json.loads(text))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
