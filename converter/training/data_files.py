"""Which files of a directory are samples, and whether a file's name says that it is held out.

Only the directory's own plain files count: what its README.md names elsewhere, links that lead out of it, and loading
scripts are never followed. No file is passed over in silence: it is data, it is one of the files that data sets have
beside their data, or the run is refused.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from converter.errors import ConverterError

Format = Literal["json", "csv", "parquet", "text"]
Split = Literal["train", "validation", "test"]

FORMATS: Final[dict[str, Format]] = {
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
    ".txt": "text",
}
COMPRESSED: Final = (".bz2", ".gz", ".xz", ".zst")
# Words of a file's name, or of its folder's: https://huggingface.co/docs/hub/datasets-file-names-and-splits
_SPLITS: Final[dict[str, Split]] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "tests", "testing"), "test"),
}
# What lies beside data: texts about it, what git and the libraries keep there, and scripts, which are not run.
_BESIDE: Final = re.compile(
    r"\..*|(readme|licen[cs]e|notice|copying|citation|changelog|contributing|authors|requirements)([-_][\w-]*)?(\.txt)?"
    r"|(dataset_infos?|dataset_dict|state|croissant)\.json|.*\.(md|rst|html?|ya?ml|toml|cff|bib|py|sh|ipynb)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Directory:
    """The files of samples in a directory, and the names of what lies beside them."""

    files: tuple["DataFile", ...]
    beside: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of samples. ``split`` is what its name says it is for, None where that says nothing."""

    path: Path
    split: Split | None = None


def format_of(path: Path) -> Format | None:
    """How a file's samples are written, by its name."""
    suffixes = [suffix for suffix in path.suffixes if suffix not in COMPRESSED]
    return FORMATS.get(suffixes[-1]) if suffixes else None


def read_directory(directory: Path) -> Directory:
    """Every file of samples below a directory. Raises ConverterError at one that can't be told or read as one."""
    beside: list[str] = []
    files = tuple(DataFile(path, _split(path.relative_to(directory))) for path in _data(directory, beside))
    return Directory(files, tuple(beside))


def within(path: Path, directory: Path) -> bool:
    """Whether a path lies in a directory, links followed; one that links to itself lies where it stands."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(directory))


def _data(directory: Path, beside: list[str]) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        if _BESIDE.fullmatch(path.name):
            beside.append(path.name)
        elif not within(path, directory) or (path.is_symlink() and path.is_dir()):
            raise ConverterError(f"{path}: is a link out of its directory, or to one; copy what it means there")
        elif path.is_dir():
            found = [*_data(path, beside)]
            if not found and format_of(path):
                raise ConverterError(f"{path}: is a directory without data, wanted a file")
            yield from found
        elif not path.is_file():
            raise ConverterError(f"{path}: is no plain file; only such are read")
        elif not format_of(path):
            raise ConverterError(
                f"{path}: is in no known format; wanted {', '.join(FORMATS)}: convert it, or take it out of the "
                "directory"
            )
        else:
            yield path


def _split(path: Path) -> Split | None:
    """What the file's name says, or else the nearest folder's that says something."""
    for part in (path.name, *(parent.name for parent in path.parents)):
        splits = {_SPLITS[word] for word in re.split(r"[^a-z]+", part.casefold()) if word in _SPLITS}
        if len(splits) > 1:
            raise ConverterError(f"{path}: its name says {' and '.join(sorted(splits))}; rename it to one of them")
        if splits:
            return splits.pop()
    return None
