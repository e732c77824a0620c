"""Copies of outputs in a directory of another file system, each whole or not at all."""

import shutil
from pathlib import Path

from converter.errors import ConverterError
from converter.fleet.rows import Row, Steps
from converter.read.files import could_not_read, open_regular
from converter.writing.outputs import refuse_to_lose
from converter.writing.whole_file import whole_file


def destination(row: Row, steps: Steps) -> Path | None:
    """Where an output is pushed to: at its path below the directory of outputs. Raises ConverterError outside of it."""
    if steps.push is None:
        return None
    if not row.output.is_relative_to(steps.outputs):
        raise ConverterError(
            f"{row.where}: output {row.output} doesn't lie below {steps.outputs}, so --push has no place for it"
        )
    return steps.push / row.output.relative_to(steps.outputs)


def pushed(output: Path, steps: Steps) -> Path:
    """Copy an output, a file or a directory of files, and return where it is now. Raises ConverterError."""
    assert steps.push  # noqa: S101  who pushes says where to
    target = steps.push / output.relative_to(steps.outputs)
    files = (
        [(path, target / path.name) for path in sorted(output.glob("*.gguf"))]
        if output.is_dir()
        else [(output, target)]
    )
    for source, copy in files:
        _copy(source, copy)
    return target


def _copy(source: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    refuse_to_lose(copy)
    with could_not_read(source), open_regular(source) as file, whole_file(copy) as out:
        shutil.copyfileobj(file, out, 1 << 20)
