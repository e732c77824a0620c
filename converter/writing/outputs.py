"""What may be written where: nothing is replaced but a GGUF, and no device, pipe or directory ever."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from converter.errors import ConverterError
from converter.read.files import could_not_read, is_file, open_regular, real

_MAGIC: Final = b"GGUF"
# https://learn.microsoft.com/en-us/windows/win32/fileio/naming-a-file
_DEVICES: Final = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{name}{i}" for name in ("COM", "LPT") for i in range(1, 10))}
)
_BLOCK_NBYTES: Final = 1 << 20


def refuse_special(path: Path) -> None:
    """Raise ConverterError where ``path`` is there and is no plain file: its node would be replaced.

    On Windows some names are devices in every directory, with any ending: what is written to one is gone.
    """
    if sys.platform == "win32" and path.name.partition(".")[0].rstrip(" ").upper() in _DEVICES:
        raise ConverterError(f"{path}: is the name of a device on Windows; give another file name with -o")
    try:
        is_special = _is_system_link(path) or (path.exists() and not is_file(path))
    except OSError as error:
        raise ConverterError(f"{_start(path)}: can't be written: {error.strerror or error}") from error
    if is_special:
        what = "a directory" if path.is_dir() else "no plain file"
        raise ConverterError(f"{path}: is {what}; give a file name with -o")


def _is_system_link(path: Path) -> bool:
    """Whether it is one like /dev/stdout, which would be replaced by the file even where it leads to a plain one."""
    return path.is_symlink() and str(real(path.parent)).startswith(("/dev", "/proc")) and not _is_memory(path)


def _is_memory(path: Path) -> bool:
    return real(path.parent).is_relative_to("/dev/shm")  # noqa: S108  files of anybody


def refuse_to_lose(path: Path) -> None:
    """Raise ConverterError where something else than a GGUF (or an empty file) would be replaced."""
    refuse_special(path)
    if not path.exists():
        return
    with could_not_read(path), open_regular(path) as file:
        begin = file.read(len(_MAGIC))
    if begin not in (b"", _MAGIC):
        raise ConverterError(f"{path}: is there already, and is no GGUF; give another name with -o, or delete it first")


def refuse_other_text(path: Path, text: str) -> None:
    """Raise ConverterError where a file is there that says anything else: somebody may have written it by hand."""
    refuse_special(path)
    wanted = text.encode()
    if not path.exists():
        return
    with could_not_read(path), open_regular(path) as file:
        found = file.read(len(wanted) + 1)
    if found != wanted:
        raise ConverterError(f"{path}: is there already, and says something else; move it away first")


class Sink(Protocol):
    """Where a writer's blocks go, one after the other."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Take a block, and say how many bytes it has."""


def refuse_different(path: Path, write: Callable[[Sink], object]) -> None:
    """Raise ConverterError unless a file holds, byte for byte, what ``write`` writes. Nothing is written."""
    with could_not_read(path), open_regular(path) as file:
        comparison = _Comparison(path, file)
        write(comparison)
        if file.read(1):
            raise _different(path, file.tell())


class _Comparison:
    """A sink that compares each block with what a file has in its place."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file

    def write(self, data: bytes | memoryview, /) -> int:
        view = memoryview(data).cast("B")
        for begin in range(0, len(view), _BLOCK_NBYTES):
            part = view[begin : begin + _BLOCK_NBYTES]
            if self._file.read(len(part)) != part:
                raise _different(self._path, self._file.tell())
        return len(view)


def _different(path: Path, before: int) -> ConverterError:
    return ConverterError(
        f"{path}: is damaged, or not the untied copy of this base (it differs before byte {before:,}); delete it "
        "first, or give another directory"
    )


def _start(path: Path) -> str:
    return str(path) if len(str(path)) <= 200 else f"{str(path)[:200]}..."
