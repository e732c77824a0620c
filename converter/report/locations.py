"""Where in an adapter's files a finding lies, and what names it wherever the files are checked out."""

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import quote

from converter.diagnostics import Finding
from converter.read.checkpoint import CONFIG_NAME, INDEX_NAME, PICKLE_NAME, SAFETENSORS_NAME
from converter.read.files import Unreadable, exists, inside, read_whole
from converter.read.hub_address import Address
from converter.read.limits import CONFIG_NBYTES

# Of a line without its indent: spaces in two places would be tried in n^2 ways.
_FIELD: Final = re.compile(r'[{,]?\s*"(\w+)"\s*:')
_NAME: Final = re.compile(r"\w+")
# A finding of a family that is about the config stands there, even where it names no field of it.
_CONFIG_FAMILY: Final = "CF"


class Location(NamedTuple):
    """A file, and the line where it is one of lines; ``within`` names the tensor, module or field."""

    path: Path | Address
    line: int | None
    within: str


class Locations:
    """The locations of one adapter's findings."""

    def __init__(self, directory: Path | Address) -> None:
        """Of the adapter in ``directory``; of one on a hub without lines, for its config is no longer here."""
        self._directory = directory

    def __call__(self, finding: Finding) -> Location:
        """Where a finding lies."""
        name = _NAME.match(finding.where)
        line = self._lines.get(name[0]) if name else None
        if line or finding.code.startswith(_CONFIG_FAMILY):
            return Location(self._directory / CONFIG_NAME, line or 1, finding.where)
        return Location(self._weights, None, finding.where)

    @cached_property
    def _weights(self) -> Path | Address:
        if not isinstance(self._directory, Path):
            return self._directory / SAFETENSORS_NAME
        paths = [self._directory / name for name in (SAFETENSORS_NAME, INDEX_NAME, PICKLE_NAME)]
        return next((path for path in paths if exists(path)), paths[0])

    @cached_property
    def _lines(self) -> Mapping[str, int]:
        """The line of each field of the config, the first of its name."""
        lines: dict[str, int] = {}
        if not isinstance(self._directory, Path):
            return lines
        with suppress(OSError, Unreadable, UnicodeDecodeError):
            text = read_whole(inside(self._directory / CONFIG_NAME), CONFIG_NBYTES).decode()
            for number, line in enumerate(text.splitlines(), 1):
                field = _FIELD.match(line.lstrip())
                if field:
                    lines.setdefault(field[1], number)
        return lines


def relative(path: Path | Address) -> str:
    """The path from the root of the repository it lies in, else from here or from the directory above its own.

    An address on a hub is whole.
    """
    if not isinstance(path, Path):
        return str(path)
    path = path.absolute()
    return path.relative_to(_root(path)).as_posix()


def relative_uri(path: Path | Address) -> str:
    """The same as a URI."""
    safe = "/:@" if not isinstance(path, Path) else "/"
    return quote(relative(path), safe, errors="surrogateescape")  # a name's own bytes


def fingerprint(directory: Path | Address, finding: Finding) -> str:
    """What stays the same of a finding from run to run, wherever the run starts: its code, its adapter, its place.

    And its target, where it is about one: two servers may refuse one thing.
    """
    adapter = directory.lasting_name if not isinstance(directory, Path) else _lasting_name(directory.absolute())
    of = (finding.code, adapter, finding.where, *((finding.target,) if finding.target else ()))
    return sha256("\0".join(of).encode(errors="backslashreplace")).hexdigest()[:32]


def _lasting_name(directory: Path) -> str:
    root = _repository(directory)
    return directory.relative_to(root).as_posix() if root else directory.name


def _repository(path: Path) -> Path | None:
    return next((directory for directory in path.parents if exists(directory / ".git")), None)


def _root(path: Path) -> Path:
    here = Path.cwd()
    return _repository(path) or (here if path.is_relative_to(here) else path.parents[min(1, len(path.parents) - 1)])
