"""Copies of outputs in a directory of another file system, each whole or not at all."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from converter.conversion import Written
from converter.errors import ConverterError
from converter.fleet.rows import Row, Steps
from converter.fleet.task import Task
from converter.read.files import could_not_read, open_regular
from converter.writing.outputs import refuse_to_lose
from converter.writing.whole_file import whole_file


def destination(row: Row, steps: Steps) -> Path | None:
    """Where an output is pushed to: at its path below the directory of outputs. Raises ConverterError outside of it."""
    if steps.push is None:
        return None
    for path in filter(None, (row.output, row.untied_base)):
        if not path.is_relative_to(steps.outputs):
            raise ConverterError(
                f"{row.where}: output {path} doesn't lie below {steps.outputs}, so --push has no place for it"
            )
    return steps.push / row.output.relative_to(steps.outputs)


def pushed(task: Task, files: Sequence[Written]) -> Path:
    """Copy what a row wrote, and return where it is now. Raises ConverterError."""
    row, steps = task.row, task.steps
    assert steps.push  # noqa: S101  who pushes says where to
    shared = [row.untied_base] if row.untied_base and not task.untied_pushed else []
    for path in (*shared, *(path for one in files for path in one.shards or (one.path,))):
        _copy(path, steps.push / path.relative_to(steps.outputs))
    return steps.push / row.output.relative_to(steps.outputs)


def _copy(source: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    refuse_to_lose(copy)
    with could_not_read(source), open_regular(source) as file, whole_file(copy) as out:
        shutil.copyfileobj(file, out, 1 << 20)
