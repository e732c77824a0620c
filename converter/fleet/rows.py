"""What is to be done: an adapter, its base, what it is to become, and where that goes."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from converter.diagnostics import Deployment
from converter.errors import ConverterError


class Row(NamedTuple):
    """One adapter of a fleet. Paths are absolute; ``base`` is None where the adapter's own config names it.

    ``where`` is how messages call the row: the manifest's path and line, or the adapter's directory.
    """

    where: str
    adapter: Path
    base: Path | None
    deployment: Deployment
    output: Path
    initial_adapter: Path | None = None
    rename_keys: bool = False
    text_only: bool = False


class Steps(NamedTuple):
    """What is done with every adapter beside converting it.

    ``prompts`` are the proof's own texts; below ``push`` each output is copied, at its path below ``outputs``.
    """

    verify: bool = False
    prompts: Path | None = None
    push: Path | None = None
    outputs: Path = Path()


def refuse_clashes(rows: Sequence[Row]) -> None:
    """Raise ConverterError where two rows would write one file, or one what another reads."""
    identity = _Identities()
    writers: dict[str, Row] = {}
    for row in rows:
        first = writers.setdefault(identity(row.output), row)
        if first is not row:
            raise ConverterError(
                f"{row.where}: output {row.output} is that of {first.where} too; give each adapter one of its own"
            )
    for row in rows:
        for what, path in (("adapter", row.adapter), ("base", row.base), ("initial_adapter", row.initial_adapter)):
            if path and (writer := writers.get(identity(path))):
                raise ConverterError(f"{row.where}: {what} {path} is the output of {writer.where}; give it another one")
        if writer := writers.get(identity(row.output.parent)):
            raise ConverterError(f"{row.where}: output {row.output} lies in that of {writer.where}; give another one")


class _Identities:
    """The same text for every spelling of a path, through links too; a directory is looked at once."""

    def __init__(self) -> None:
        self._directory = cache(os.path.realpath)

    def __call__(self, path: Path) -> str:
        return os.path.normcase(os.path.join(self._directory(path.parent), path.name))  # noqa: PTH118  100,000 of them
