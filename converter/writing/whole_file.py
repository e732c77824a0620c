"""A file that appears whole or not at all.

On Linux the file has no name while it is written (O_TMPFILE), so that even a killed process leaves nothing. Elsewhere a
temporary file in the same directory is renamed at the end, and removed where the writing fails; that of a killed
process goes when the next file is written there.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from converter.errors import ConverterError
from converter.left_behind import lock, remove_left_behind
from converter.writing.outputs import refuse_special

_PARTIAL: Final = ".{}.partial"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for writing; it gets its name, replacing what was there, when the block ends without an exception.

    Who may read what was there may read the new file, and nobody else.

    Raises ConverterError, naming the path, where the file system refuses (no space, no permission), or
    where it is no plain file.
    """
    refuse_special(path)
    with _refused(path), _nameless(path) or _temporary(path) as file:
        yield file


@contextmanager
def whole_files(paths: Sequence[Path]) -> Iterator[list[BinaryIO]]:
    """Open several files of one whole, which is nothing without the first: they get their names all at the end.

    The first is named last, and what was in its place goes first: so no moment has a part of this whole beside one of
    another. Raises as ``whole_file`` does; then none of them is there.
    """
    first, *others = paths
    named = False
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(whole_file(path)) for path in paths]
            yield files
            with _refused(first):
                for file in files:
                    _sync(file)  # here, so that between the names lies no time
                named = True
                if others:
                    first.unlink(missing_ok=True)
    except BaseException:
        for path in others if named else ():
            with suppress(OSError):  # it has no name yet, or can't be removed either
                path.unlink()
        raise


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConverterError(f"{path}: can't be written: {error.strerror or error}; nothing was left behind") from error


def _nameless(path: Path) -> "_Nameless | None":
    if not hasattr(os, "O_TMPFILE") or not Path("/proc/self/fd").is_dir():
        return None
    try:
        return _Nameless(path, os.open(path.parent, os.O_TMPFILE | os.O_RDWR, 0o666))
    except OSError as error:
        # No O_TMPFILE in this file system, or in a kernel that takes the flag for O_DIRECTORY alone.
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.EISDIR):
            return None
        raise


class _Nameless:
    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._mode = _mode(path)
        self._file = os.fdopen(descriptor, "wb")

    def __enter__(self) -> BinaryIO:
        return self._file

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                _sync(self._file)
                self._name()
        finally:
            self._file.close()

    def _name(self) -> None:
        os.fchmod(self._file.fileno(), self._mode)
        try:
            self._link(self._path)
        except FileExistsError:
            # A name of its own, whoever else writes the same file at this moment, and no longer than a name may be.
            lock(self._file.fileno())
            beside = _name_beside(self._path)
            self._link(beside)
            try:
                beside.replace(self._path)
            except OSError:
                beside.unlink()
                raise
        _sync_directory(self._path.parent)

    def _link(self, path: Path) -> None:
        # Only with a directory descriptor does os.link call linkat, which can follow /proc's link to the file.
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.link(f"/proc/self/fd/{self._file.fileno()}", path, src_dir_fd=descriptor, follow_symlinks=True)
        finally:
            os.close(descriptor)


@contextmanager
def _temporary(path: Path) -> Iterator[BinaryIO]:
    mode = _mode(path)
    partial, descriptor = _partial_beside(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            _sync(file)
        partial.chmod(mode)
        partial.replace(path)
        _sync_directory(path.parent)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def _name_beside(path: Path) -> Path:
    remove_left_behind(path.parent, _PARTIAL.format("?" * 16), Path.unlink)
    return path.with_name(_PARTIAL.format(os.urandom(8).hex()))


def _partial_beside(path: Path) -> tuple[Path, int]:
    """A new file and what holds its lock. Another process may remove it before that; then there is another."""
    while True:
        partial = _name_beside(path)
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        if not lock(descriptor) or partial.exists():
            return partial, descriptor
        os.close(descriptor)


def _mode(path: Path) -> int:
    """The permissions of what is replaced; of a new file, what the umask leaves."""
    return path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except PermissionError:
        return  # Windows opens no directory; elsewhere one may write into some that one may not read
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
