"""Opens what people bring. Nothing else here does: regular files only, at most so many bytes, and one word for an end.

An adapter or a base comes from somewhere: a name in it may be a FIFO, which never ends to wait for a writer, or a link
to a device, which never ends. A link that a user names is followed. Those that lie in a directory are followed as long
as they stay in it (``inside``), or lead into the blobs of the hub's cache that it is a snapshot of.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ENXIO
from fnmatch import filter as matching
from io import BufferedReader
from pathlib import Path
from stat import S_ISBLK, S_ISCHR, S_ISDIR, S_ISFIFO, S_ISREG
from typing import Final, TypeVar

from converter.errors import ConverterError

# O_NONBLOCK: a FIFO is opened without waiting, and then refused. Windows has neither it nor O_CLOEXEC, but O_BINARY.
_FLAGS: Final = sum(getattr(os, name, 0) for name in ("O_RDONLY", "O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))
_KINDS: Final = (
    (S_ISDIR, "a directory"),
    (S_ISFIFO, "a named pipe"),
    (S_ISCHR, "a device"),
    (S_ISBLK, "a device"),
)

T = TypeVar("T")

START_NBYTES: Final = 200  # as many tell what a file is (foreign.py)
LFS_MAGIC: Final = b"version https://git-lfs.github.com/spec/"


class Unreadable(Exception):
    """A file is not what it should be, as far as reading tells; the message says why."""


def inside(path: Path) -> Path:
    """A file that is found in a directory, to be read. Raises Unreadable where it is a link that leads out of it.

    Who made the directory would choose what else is read here: another's file, whose words end up in a report.
    """
    if os.path.islink(path):  # noqa: PTH114  Path's own raises where we may not look
        target = Path(os.path.realpath(path))
        is_own = any(target.is_relative_to(place) for place in own_places(path.parent))
        if os.path.exists(target) and not is_own:  # noqa: PTH110  as above
            raise Unreadable(f"is a link to {target}, outside of its directory; put the file itself there")
    return path


def own_places(directory: Path) -> Iterator[Path]:
    """The directory, and the blobs of the hub's cache where it is a snapshot: .../snapshots/COMMIT beside .../blobs."""
    real = Path(os.path.realpath(directory))
    yield real
    yield from (place.parent / "blobs" for place in real.parents if place.name == "snapshots")


def require_readable(path: Path, limit: int) -> None:
    """Have a library read a file: raise Unreadable where this package wouldn't. A file that isn't there is fine."""
    if exists(path):
        with open_regular(inside(path)) as file:
            _require_size(os.fstat(file.fileno()).st_size, limit)


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file. Raises Unreadable where it is something else, OSError where the system refuses."""
    try:
        descriptor = os.open(path, _FLAGS)
    except ValueError as error:  # a NUL in its name
        raise Unreadable(f"has an impossible name: {error}") from error
    except OSError as error:
        if error.errno == ENXIO:
            raise Unreadable("is a socket, wanted a file") from error
        raise
    mode = os.fstat(descriptor).st_mode
    if not S_ISREG(mode):
        os.close(descriptor)
        raise Unreadable(f"is {next((kind for is_kind, kind in _KINDS if is_kind(mode)), 'no file')}, wanted a file")
    return os.fdopen(descriptor, "rb")


def read_whole(path: Path, limit: int) -> bytes:
    """A file's bytes, of which there may be ``limit``. Raises Unreadable, OSError."""
    with open_regular(path) as file:
        nbytes = os.fstat(file.fileno()).st_size
        _require_size(nbytes, limit)
        data = file.read(nbytes + 1)  # of which there is memory for as many at once
        if len(data) > nbytes:  # it grows
            data += file.read(limit + 1 - len(data))
    _require_size(len(data), limit)
    return data


def _require_size(nbytes: int, limit: int) -> None:
    if nbytes > limit:
        raise Unreadable(f"has {nbytes} bytes (at most {limit})")


def read_text(path: Path, limit: int) -> str:
    """A file's text, of at most ``limit`` bytes; editors on Windows begin one with a mark, which is left out.

    Raises ConverterError, status 2.
    """
    with could_not_read(path):
        data = read_whole(path, limit)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConverterError(f"{path}: not UTF-8 (at line {line})") from error


def read_bytes(path: Path, offset: int, nbytes: int) -> bytes:
    """``nbytes`` bytes at ``offset``. Raises ConverterError, status 2, where the file hasn't got them any more."""
    data = _read_at(path, offset, nbytes, lambda file: file.read(nbytes))
    _require(path, nbytes, len(data))
    return data


def read_into(path: Path, offset: int, buffer: memoryview) -> None:
    """Fill ``buffer`` with the bytes at ``offset``. Raises as ``read_bytes`` does."""
    n_read = _read_at(path, offset, buffer.nbytes, lambda file: file.readinto(buffer))
    _require(path, buffer.nbytes, n_read)


def _read_at(path: Path, offset: int, nbytes: int, read: Callable[[BufferedReader], T]) -> T:
    # Without could_not_read: there are hundreds of tensors, and a context takes as long as a read.
    try:
        with open_regular(path) as file:
            _require(path, offset + nbytes, os.fstat(file.fileno()).st_size)  # before there is memory for all of them
            file.seek(offset)
            return read(file)
    except (Unreadable, OSError) as error:
        raise _refused(path, error) from error


def _require(path: Path, wanted: int, found: int) -> None:
    if found < wanted:
        raise ConverterError(f"{path}: ended while it was read; it is truncated or changing")


@contextmanager
def could_not_read(path: Path) -> Iterator[None]:
    """Make of what keeps ``path`` from being read a ConverterError, status 2."""
    try:
        yield
    except (Unreadable, OSError) as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: Unreadable | OSError) -> ConverterError:
    if isinstance(error, Unreadable):
        return ConverterError(f"{path}: {error}")
    return ConverterError(f"{error.filename or path}: can't be read: {error.strerror or error}")


def status_of(path: Path) -> os.stat_result:
    """A file's size and times. Raises ConverterError where it is gone."""
    with could_not_read(path):
        return path.stat()


def is_file(path: Path) -> bool:
    """Whether there is a file, as far as we may look; a name that can't be one is none."""
    return os.path.isfile(path)  # noqa: PTH113  Path.is_file raises where a name is too long, or may not be looked at


def mode_of(path: Path, *, follow: bool = True) -> int:
    """The mode of what has this name, 0 where nothing has.

    Raises OSError where we may not look, or where links lead in a circle: Path.exists and its like say that nothing is
    there, of what may not be looked at from Python 3.14 on.
    """
    try:
        return path.stat(follow_symlinks=follow).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # what can't be a name is none
        return 0


def is_directory(path: Path) -> bool:
    """Whether there is a directory. Raises OSError where we may not look."""
    return S_ISDIR(mode_of(path))


def is_same(one: Path, other: Path) -> bool:
    """Whether two names are of one file or directory that is there: a.gguf and A.gguf are, on Windows and macOS."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def exists(path: Path) -> bool:
    """Whether there is anything of this name, as far as we may look: also a link that leads nowhere."""
    return os.path.lexists(path)


def named(directory: Path, pattern: str) -> list[Path]:
    """What in a directory has a name of a pattern, sorted: also links that lead nowhere. None where no directory is.

    Raises OSError where we may not look: Path.glob leaves out what may not be looked at, and links in a circle.
    """
    try:
        names = os.listdir(directory)  # noqa: PTH208  faster
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [directory / name for name in sorted(matching(names, pattern))]


def real(path: Path) -> Path:
    """Where a path leads, as far as its links lead anywhere; what can't be a name leads to itself.

    Path.resolve raises RuntimeError at links in a circle (up to Python 3.12), and ValueError at a NUL.
    """
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        return path.absolute()
