"""Whether files are still what they were: a glance at sizes and times first, and a digest where that doesn't tell."""

import re
import stat
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Final, NamedTuple

from converter.digests import file_digest_of
from converter.errors import ConverterError
from converter.fleet.rows import Row
from converter.read.files import could_not_read, is_file
from converter.read.limits import FILES

_SPLIT: Final = re.compile(r"(.+-)\d{5}(-of-\d{5}\.gguf)")
# What is written into directories of adapters and bases, and no conversion reads.
_OUTPUTS: Final = (".gguf", ".md", ".modelfile", ".sqlite", ".sqlite-wal", ".sqlite-shm", ".lock", ".html")


class Stamp(NamedTuple):
    """A file's name, size and time of its last change. ``changed_ns`` is that of its inode, which nobody can set."""

    name: str
    nbytes: int
    modified_ns: int
    changed_ns: int = 0


Stamps = tuple[Stamp, ...]


def adapter_stamps(directory: Path, initial: Path | None = None) -> Stamps:
    """Of every file in an adapter's directory that a conversion may read. Raises ConverterError."""
    own = tuple(_stamp(path, exact=True) for path in _inputs_in(directory))
    return (*own, *adapter_stamps(initial)) if initial else own


def adapter_content(directory: Path, initial: Path | None = None) -> str:
    """SHA-256 over what ``adapter_stamps`` looks at: the digest and the name of each file. Raises ConverterError."""
    files = (path for place in (directory, initial) if place for path in _inputs_in(place))
    lines = "".join(f"{file_digest_of(path)}  {path.name}\n" for path in files)
    return sha256(lines.encode(errors="surrogateescape")).hexdigest()


def base_stamps(base: Path) -> Stamps:
    """Of a base's files. Without the inode's time: to link or to share a base changes none of its bytes."""
    with could_not_read(base):
        is_directory = stat.S_ISDIR(base.stat().st_mode)
    return tuple(map(_stamp, _inputs_in(base) if is_directory else _parts(base)))


def output_stamps(output: Path, *, is_split: bool = False) -> Stamps:
    """Of an output file, or of the files in an output directory; () where there is nothing.

    Of one that may have become several files, NAME-00001-of-00003.gguf for NAME.gguf, those too.
    """
    try:
        if output.is_dir():
            return tuple(map(_stamp, _files_in(output, lambda name: name.endswith(".gguf"))))
        whole = (_stamp(output),) if output.exists() else ()
        return (*whole, *map(_stamp, _parts_for(output))) if is_split else whole
    except (ConverterError, OSError):
        return ()


def own_stamps(row: Row) -> Stamps:
    """Of what is at a row's output; () where there is nothing."""
    return output_stamps(row.output, is_split=row.split_max_size is not None)


def untied_stamps(row: Row) -> Stamps:
    """Of what is where a row has its untied base together with others; () where there is nothing."""
    return output_stamps(row.untied_base) if row.untied_base else ()


def _inputs_in(directory: Path) -> Iterator[Path]:
    return _files_in(directory, lambda name: not name.lower().endswith(_OUTPUTS))


def _files_in(directory: Path, counts: Callable[[str], bool]) -> Iterator[Path]:
    with could_not_read(directory):
        paths = [path for path in directory.iterdir() if counts(path.name)]
        if len(paths) > FILES:
            raise ConverterError(f"{directory}: holds more than {FILES} files")
        yield from (path for path in sorted(paths) if is_file(path))


def _parts(base: Path) -> list[Path]:
    """All files of a GGUF that was split, of which one is named."""
    split = _SPLIT.fullmatch(base.name)
    if not split:
        return [base]
    return [*_matching(base.parent, rf"{re.escape(split[1])}\d{{5}}{re.escape(split[2])}")]


def _parts_for(output: Path) -> Iterator[Path]:
    """The files that a model was split into, whose name as one file is ``output``."""
    return _matching(output.parent, rf"{re.escape(output.stem)}-\d{{5}}-of-\d{{5}}\.gguf")


def _matching(directory: Path, pattern: str) -> Iterator[Path]:
    own = re.compile(pattern)
    return _files_in(directory, lambda name: own.fullmatch(name) is not None)


def _stamp(path: Path, *, exact: bool = False) -> Stamp:
    with could_not_read(path):
        found = path.stat()
    return Stamp(path.name, found.st_size, found.st_mtime_ns, found.st_ctime_ns if exact else 0)
