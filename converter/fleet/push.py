"""Where outputs are pushed to; and copies of them in a directory of another file system, each whole or not at all."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from converter.errors import ConverterError
from converter.fleet.rows import Identities, Row, Steps
from converter.fleet.task import Outcome, Task
from converter.read.files import could_not_read, open_regular
from converter.read.hub_address import HubAddress
from converter.writing.outputs import refuse_to_lose
from converter.writing.whole_file import whole_file

_NO_FOLDERS: Final = {".git", ".cache", ".huggingface"}  # of a repository: huggingface_hub refuses them


def place_of(row: Row, steps: Steps, path: Path) -> Path | HubAddress | None:
    """Where a file of a row is pushed to: at its path below the directory of outputs. Raises ConverterError outside."""
    if row.push is None:
        return None
    if not path.is_relative_to(steps.outputs):
        raise ConverterError(
            f"{row.where}: output {path} doesn't lie below {steps.outputs}, so a push has no place for it"
        )
    below = path.relative_to(steps.outputs)
    if isinstance(row.push, Path):
        return row.push / below
    if _NO_FOLDERS & set(below.parts):
        raise ConverterError(f"{row.where}: output {path} can't have this name in a repository; give another one")
    return row.push / below.as_posix()


def check_pushes(rows: Sequence[Row], steps: Steps) -> None:
    """Raise ConverterError where a row's files can't be pushed to where it says, or would replace others there."""
    if not any(row.push for row in rows):
        return
    identity = Identities()
    own = {identity(path): f"{what} of {row.where}" for row in rows for what, path in _files(row)}
    pushed: dict[str, tuple[Path, Row]] = {}
    for row in rows:
        for path in filter(None, (row.output, row.untied_base)):
            place = place_of(row, steps, path)
            if place is None:
                continue
            key = identity(place) if isinstance(place, Path) else str(place)
            first, its = pushed.setdefault(key, (path, row))
            if identity(first) != identity(path):
                raise _taken(row, path, place, f"where {its.where} pushes another file")
            if key in own:
                raise _taken(row, path, place, f"which is {own[key]}")


def _files(row: Row) -> Iterator[tuple[str, Path]]:
    yield from row.reads
    yield "output", row.output
    if row.untied_base:
        yield "untied_base", row.untied_base


def _taken(row: Row, path: Path, place: Path | HubAddress, by: str) -> ConverterError:
    return ConverterError(f"{row.where}: push of {path} to {place}, {by}; give another place")


def copied(task: Task, outcome: Outcome) -> str | None:
    """Copy what a row wrote, where it goes to a directory, and return where it is now. Raises ConverterError."""
    row = task.row
    if not isinstance(row.push, Path):
        return None
    shared = [row.untied_base] if row.untied_base and not task.untied_pushed else []
    for path in (*shared, *outcome.files):
        _copy(path, Path(str(place_of(row, task.steps, path))))
    return str(place_of(row, task.steps, row.output))


def _copy(source: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    refuse_to_lose(copy)
    with could_not_read(source), open_regular(source) as file, whole_file(copy) as out:
        shutil.copyfileobj(file, out, 1 << 20)
