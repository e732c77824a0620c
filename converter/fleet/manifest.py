"""A manifest's lines to rows: what each column means, and what stands for an empty cell.

A path of a manifest is relative to the manifest, wherever the command runs.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple, cast, get_args

from converter.derive.locate import located_base
from converter.diagnostics import HOSTS, Deployment, Kind, Quantize
from converter.errors import ConverterError
from converter.fleet.manifest_files import Line, Value, read_lines
from converter.fleet.rows import Row
from converter.planning.file_types import FILE_TYPES
from converter.planning.outtypes import OUTTYPES
from converter.read.checkpoint import find_adapters

KINDS: Final = get_args(Kind)
COLUMNS: Final = (
    "adapter", "base", "deployment", "output", "outtype", "quantize", "imatrix", "host", "initial_adapter",
    "rename_keys", "text_only",
)  # fmt: skip
_SWITCHES: Final = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
_REMOTE: Final = "://"
_EMPTY: Final = "empty"


class Defaults(NamedTuple):
    """What stands for an empty cell. ``outputs`` is the directory of outputs that have no name of their own."""

    base: Path | None = None
    deployment: Deployment = Deployment()
    outputs: Path | None = None


def read_manifest(path: Path, defaults: Defaults) -> Iterator[Row]:
    """The rows of a manifest. Raises ConverterError naming file, line, column, what was found and what was wanted."""
    directory = path.absolute().parent
    for line in read_lines(path, frozenset(COLUMNS)):
        yield _row(_Cells(line, directory), defaults)


def discovered(directory: Path, defaults: Defaults) -> tuple[tuple[Row, ...], tuple[tuple[Path, str], ...]]:
    """A row for every adapter at or below a directory, and what may not be looked into, with the reason.

    Raises ConverterError where there is no directory for outputs.
    """
    if defaults.outputs is None:
        raise ConverterError(f"{directory}: is a directory to look for adapters in; say with --output where they go")
    top = directory.absolute()
    found = find_adapters(top)
    named = [path for path in found.adapters if _is_text(path)]
    nameless = [(path, "its name is not UTF-8") for path in found.adapters if not _is_text(path)]
    deployment = defaults.deployment
    rows = tuple(
        Row(str(path), path, defaults.base, deployment, _named(defaults.outputs, _below(top, path), deployment))
        for path in named
    )
    return rows, (*found.closed, *nameless)


def _is_text(path: Path) -> bool:
    """Whether a path can stand in the table."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _below(top: Path, adapter: Path) -> Path:
    return adapter.relative_to(top) if adapter != top else Path(top.name)


def _named(outputs: Path, name: Path, deployment: Deployment) -> Path:
    """The output of an adapter that has no name for it: a directory where two files are written."""
    place = outputs.absolute() / name
    return place if deployment.kind == "untie-lora" else place.with_name(f"{place.name}.gguf")


class _Cells:
    """The cells of one line, asked for by what they are to be."""

    def __init__(self, line: Line, directory: Path) -> None:
        self.where = line.where
        self._cells: Mapping[str, Value] = line.cells
        self._directory = directory

    def text(self, column: str) -> str | None:
        value = self._cells.get(column)
        if isinstance(value, bool):
            raise self.wrong(column, "a text")
        return value

    def one_of(self, column: str, choices: tuple[str, ...]) -> str | None:
        value = self.text(column)
        if value is not None and value not in choices:
            raise self.wrong(column, f"one of {', '.join(choices)}")
        return value

    def switch(self, column: str) -> bool:
        value = self._cells.get(column)
        if isinstance(value, str):
            value = _SWITCHES.get(value.lower(), value)
        if not isinstance(value, bool | None):
            raise self.wrong(column, "true or false")
        return bool(value)

    def path(self, column: str) -> Path | None:
        value = self.text(column)
        if value is None:
            return None
        if _REMOTE in value:
            raise self.wrong(column, "a path on this machine: download it first")
        return Path(os.path.normpath(self._directory / value))

    def base(self) -> Path | None:
        """A path, or else the name of a repository that the hub's cache on this machine has."""
        path, named = self.path("base"), self.text("base")
        if path is None or named is None or os.path.lexists(path):
            return path
        cached = located_base(Path(named))
        return cached.absolute() if os.path.lexists(cached) else path

    def wrong(self, column: str, wanted: str) -> ConverterError:
        found = self._cells.get(column)
        return ConverterError(
            f"{self.where}: column {column!r} is {_EMPTY if found is None else repr(found)}, wanted {wanted}"
        )


def _row(cells: _Cells, defaults: Defaults) -> Row:
    adapter = cells.path("adapter")
    if adapter is None:
        raise cells.wrong("adapter", "an adapter's directory")
    deployment = _deployment(cells, defaults.deployment)
    return Row(
        cells.where, adapter, cells.base() or defaults.base, deployment, _output(cells, adapter, deployment, defaults),
        cells.path("initial_adapter"), cells.switch("rename_keys"), cells.switch("text_only"),
    )  # fmt: skip


def _deployment(cells: _Cells, default: Deployment) -> Deployment:
    kind = cells.one_of("deployment", KINDS)
    of = Deployment.of(cast("Kind", kind)) if kind else default
    if cells.text("quantize") and not kind:
        of = replace(of, to="model")
    outtype, host = cells.one_of("outtype", OUTTYPES), cells.one_of("host", HOSTS)
    if host and not of.untie:
        raise cells.wrong("host", "none: it is for a head apart from the embedding (untie-lora, untie-model)")
    own_host = default.host if of.untie else None
    quantize = _quantize(cells, of) or (default.quantize if of.to == "model" else None)
    return Deployment(of.to, of.untie, outtype or default.outtype, host or own_host, quantize)


def _quantize(cells: _Cells, of: Deployment) -> Quantize | None:
    named, imatrix = cells.text("quantize"), cells.path("imatrix")
    if named is None:
        if imatrix:
            raise cells.wrong("imatrix", "none: it is for a row that says quantize")
        return None
    if named.upper() not in FILE_TYPES:
        raise cells.wrong("quantize", f"one of {', '.join(FILE_TYPES)}")
    if of.to != "model":
        raise cells.wrong("quantize", "none: only a merged model (model, untie-model) is quantised")
    return Quantize(named.upper(), imatrix)


def _output(cells: _Cells, adapter: Path, deployment: Deployment, defaults: Defaults) -> Path:
    output = cells.path("output")
    if output is None and defaults.outputs is None:
        raise cells.wrong("output", "a path: give the directory of all outputs with --output, or fill in the column")
    return output or _named(defaults.outputs or Path(), Path(adapter.name), deployment)
