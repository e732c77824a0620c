"""The cells of one line of a manifest, asked for by what they are to be."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from converter.derive.locate import located_base
from converter.errors import ConverterError
from converter.fleet.manifest_files import Line, Value
from converter.read.hub_address import SCHEME, HubAddress, hub_address

_SWITCHES: Final = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
_REMOTE: Final = "://"
_EMPTY: Final = "empty"


class Cells:
    """What each column of a line holds; a path is relative to ``directory``."""

    def __init__(self, line: Line, directory: Path) -> None:
        self.where = line.where
        self._cells: Mapping[str, Value] = line.cells
        self._directory = directory

    def given(self, column: str) -> bool:
        """Whether a cell says anything."""
        return self._cells.get(column) is not None

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

    def switch(self, column: str, *, default: bool = False) -> bool:
        value = self._cells.get(column)
        if isinstance(value, str):
            value = _SWITCHES.get(value.lower(), value)
        if not isinstance(value, bool | None):
            raise self.wrong(column, "true or false")
        return default if value is None else value

    def path(self, column: str) -> Path | None:
        value = self.text(column)
        if value is None:
            return None
        if _REMOTE in value:
            raise self.wrong(column, "a path on this machine: download it first")
        return Path(os.path.normpath(self._directory / value))

    def place(self, column: str) -> Path | HubAddress | None:
        """A directory on this machine, or one of a repository on a hub."""
        value = self.text(column)
        if not value or not value.startswith(SCHEME):
            return self.path(column)
        try:
            return hub_address(value)
        except ConverterError as error:
            raise ConverterError(f"{self.where}: column {column!r}: {error}") from error

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
