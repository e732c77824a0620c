"""A private directory for what lies between: it goes when it is closed or forgotten, and with the process.

That of a killed process goes when the next one is made in its place (left_behind.py).
"""

import os
import shutil
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Final, Self
from weakref import finalize

from converter.errors import ConverterError
from converter.left_behind import lock, remove_left_behind

_PREFIX: Final = ".adapter-scratch-"


class Scratch:
    """A new directory below ``parent``, by default the system's temporary one. Raises ConverterError at no room."""

    def __init__(self, parent: Path | None = None) -> None:
        place = Path(gettempdir()) if parent is None else parent
        try:
            remove_left_behind(place, f"{_PREFIX}*", shutil.rmtree)
            self.path, holds = _made(place)
        except OSError as error:
            raise ConverterError(f"{place}: can't be written: {error.strerror or error}") from error
        self._remove = finalize(self, _removed, self.path, holds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the directory; once is enough."""
        self._remove()


def _made(place: Path) -> tuple[Path, int | None]:
    """A directory, and what holds its lock. Another process may remove it before that; then there is another."""
    while True:
        path = Path(mkdtemp(prefix=_PREFIX, dir=place))
        try:
            holds = os.open(path, os.O_RDONLY)
        except PermissionError:  # Windows opens no directory
            return path, None
        lock(holds)
        if path.exists():
            return path, holds
        os.close(holds)


def _removed(path: Path, holds: int | None) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if holds is not None:
        os.close(holds)
