"""Reading samples: of a file, of a directory's files, or of a data set of the hub, with the datasets library.

Every file of a directory is read, and how much came of each is told; see `converter.training.data_files`.
Hub access: https://huggingface.co/docs/datasets/loading
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from converter.errors import ConverterError
from converter.read.files import could_not_read, exists, is_directory
from converter.training.data_files import FORMATS, DataFile, Directory, format_of, read_directory, within
from converter.training.data_rows import NumberedRow, read_rows
from converter.training.samples import Sample, check_alike, form_of, sample_of

if TYPE_CHECKING:
    from datasets import DatasetDict

Use = Literal["train", "eval", "left"]

_WANTED: Final = f"a file that ends in one of {', '.join(FORMATS)}, a directory of such, or org/name on the hub"
_HUB_NAME: Final = re.compile(r"([\w-][\w.-]*/[\w.-]+)(?::([\w.-]+))?")


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or a split on the hub: how many samples it has, and what they are for. Those left alone aren't read."""

    name: str
    n_samples: int | None
    use: Use


@dataclass(frozen=True, slots=True)
class Read:
    """The samples to learn from and those to evaluate on (None: none are given), and where they come from.

    ``beside`` are files of a directory that are no data.
    """

    learned: tuple[Sample, ...]
    evaluated: tuple[Sample, ...] | None
    sources: tuple[Source, ...]
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Part:
    """What one source holds: its rows by number, and the columns that there are."""

    name: str
    rows: Sequence[NumberedRow]
    columns: frozenset[str] = field(default=frozenset())


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What is learned, evaluated and left alone of a data set, in parts; None is not said."""

    learned: Sequence[_Part]
    evaluated: Sequence[_Part] | None
    left: Sequence[str] = ()
    beside: tuple[str, ...] = ()


def read_data(data: str, eval_data: str | None = None) -> Read:
    """All samples of ``data``, and those of ``eval_data``.

    Of a directory or a data set of the hub, what its name says is held out is evaluated on, and never learned.
    Raises ConverterError where anything can't be read, or it isn't clear what it is for.
    """
    chosen = _chosen(data, eval_data)
    evaluation = _evaluation(eval_data) if eval_data else None
    parts = evaluation.evaluated if evaluation else chosen.evaluated
    learned = _samples(chosen.learned, data)
    evaluated = _samples(parts, eval_data or data) if parts is not None else None
    check_alike((*learned, *(evaluated or ())))
    left = dict.fromkeys((*chosen.left, *(evaluation.left if evaluation else ())))
    used = {part.name for part in (*chosen.learned, *(parts or ()))}
    return Read(
        learned,
        evaluated,
        (
            *(Source(part.name, len(part.rows), "train") for part in chosen.learned),
            *(Source(part.name, len(part.rows), "eval") for part in parts or ()),
            *(Source(name, None, "left") for name in left if name not in used),
        ),
        chosen.beside,
    )


def split_samples(
    samples: tuple[Sample, ...], eval_split: float
) -> tuple[tuple[Sample, ...], tuple[Sample, ...] | None]:
    """The samples to train on, and the share of them that is held out.

    A sample's own digest decides, and no seed: runs with other seeds are compared on the same held-out samples.
    """
    if eval_split <= 0 or len(samples) < 2:
        return samples, None
    n_held_out = min(max(1, round(len(samples) * eval_split)), len(samples) - 1)
    held_out = set(sorted(range(len(samples)), key=lambda i: _digest(samples[i]))[:n_held_out])
    train = tuple(sample for i, sample in enumerate(samples) if i not in held_out)
    return train, tuple(samples[i] for i in sorted(held_out))


def _digest(sample: Sample) -> bytes:
    return sha256(repr(replace(sample, where="")).encode()).digest()


def _samples(parts: Sequence[_Part], data: str) -> tuple[Sample, ...]:
    """The samples of all parts, which are of one form."""
    filled = [part for part in parts if part.rows]
    if not filled:
        raise ConverterError(f"{data}: holds no samples")
    forms = {part.name: form_of(part.columns, [row for _, row in part.rows], part.name) for part in filled}
    first = filled[0].name
    other = next((name for name, form in forms.items() if form != forms[first]), None)
    if other:
        raise ConverterError(f"{other}: holds {forms[other]}, and {first} holds {forms[first]}; wanted one form")
    return tuple(
        sample_of(forms[first], row, f"{part.name}, sample {number}") for part in filled for number, row in part.rows
    )


# --- What is for what -------------------------------------------------------------------------------------------------


def _chosen(data: str, eval_data: str | None) -> _Chosen:
    path = Path(data)
    if _is_directory(path):
        return _of_directory(path, _directory(path), eval_data)
    if exists(path) or not _is_hub_name(data):
        return _Chosen([_of_file(path)], None)
    parts = _load(data)
    learned = "train" if "train" in parts else _only(parts, data, "train")
    held_out = _held_out_split(parts) if eval_data is None else None
    left = [f"{data}, split {name}" for name in parts if name not in (learned, held_out)]
    return _Chosen([_of_split(parts, learned, data)], [_of_split(parts, held_out, data)] if held_out else None, left)


def _evaluation(eval_data: str) -> _Chosen:
    """What is evaluated of --eval-data: what is named so, or all where nothing is."""
    path = Path(eval_data)
    if _is_directory(path):
        files = _directory(path).files
        named = _one_split([file for file in files if _is_held_out(file)], eval_data)
        left = [str(file.path) for file in files if named and not _is_held_out(file)]
        return _Chosen([], [_of_file(file.path) for file in named or files], left)
    if exists(path) or not _is_hub_name(eval_data):
        return _Chosen([], [_of_file(path)])
    parts = _load(eval_data)
    split = _held_out_split(parts) or _only(parts, eval_data, "validation or test")
    return _Chosen([], [_of_split(parts, split, eval_data)], [f"{eval_data}, split {n}" for n in parts if n != split])


def _is_directory(path: Path) -> bool:
    with could_not_read(path):
        return is_directory(path)


def _of_directory(path: Path, directory: Directory, eval_data: str | None) -> _Chosen:
    held_out = [file for file in directory.files if _is_held_out(file)]
    learned = [file.path for file in directory.files if file not in held_out and not _is_given(file, path, eval_data)]
    if not learned:
        raise ConverterError(f"{path}: holds nothing to learn from: its files are named as held out, or --eval-data")
    read = [_of_file(file) for file in learned]
    if eval_data:
        return _Chosen(read, None, [str(file.path) for file in held_out], directory.beside)
    evaluated = [_of_file(file.path) for file in _one_split(held_out, str(path))]
    return _Chosen(read, evaluated or None, (), directory.beside)


def _directory(path: Path) -> Directory:
    directory = read_directory(path)
    if not directory.files:
        raise ConverterError(f"{path}: no data in a known format; wanted {_WANTED}")
    return directory


def _is_held_out(file: DataFile) -> bool:
    return file.split in ("validation", "test")


def _is_given(file: DataFile, directory: Path, eval_data: str | None) -> bool:
    """Whether a file is evaluated on because --eval-data names it, or a directory in this one."""
    given = Path(eval_data or "")
    return not within(directory, given) and within(file.path, given)


def _one_split(files: Sequence[DataFile], data: str) -> Sequence[DataFile]:
    """Files to evaluate on. To choose on a test set would spoil it, so that nobody does that without saying so."""
    firsts = {file.split: file.path for file in reversed(files)}
    if len(firsts) > 1:
        paths = " and ".join(str(path) for path in firsts.values())
        raise ConverterError(f"{data}: holds a validation and a test split ({paths}); give one of them as --eval-data")
    return files


# --- Files ------------------------------------------------------------------------------------------------------------


def _of_file(path: Path) -> _Part:
    if not exists(path) or _is_directory(path) or not format_of(path):
        found = "no data in a known format" if exists(path) else "not found"
        raise ConverterError(f"{path}: {found}; wanted {_WANTED}")
    return _part(str(path), read_rows(path))


def _part(name: str, rows: Sequence[NumberedRow]) -> _Part:
    return _Part(name, rows, frozenset(column for _, row in rows for column in row))


# --- The hub ----------------------------------------------------------------------------------------------------------


def _is_hub_name(data: str) -> bool:
    return bool(_HUB_NAME.fullmatch(data)) and not format_of(Path(data))


def _only(parts: "DatasetDict", data: str, wanted: str) -> str:
    if len(parts) > 1:
        raise ConverterError(f"{data}: has no split {wanted}; found {', '.join(map(str, parts))}")
    return str(next(iter(parts)))


def _held_out_split(parts: "DatasetDict") -> str | None:
    if len(parts) < 2:
        return None
    named = [name for name in ("validation", "test") if name in parts]
    return named[0] if named else None


def _of_split(parts: "DatasetDict", split: str, data: str) -> _Part:
    name = data if len(parts) == 1 else f"{data}, split {split}"
    return _part(name, list(enumerate(parts[split].to_list(), 1)))


def _load(data: str) -> "DatasetDict":
    """All splits. The library runs no scripts, and refuses a README.md that names files of elsewhere."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    name = _HUB_NAME.fullmatch(data)
    try:
        with _quiet():
            parts: DatasetDict = load_dataset(*(name.groups() if name else (data,)))
    except (DatasetsError, ImportError, OSError, ValueError) as error:
        why = " ".join(str(error.__cause__ or error).split())
        raise ConverterError(f"{data}: can't be read: {why}") from error
    return parts


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars, and without its log: what matters of it is in the exceptions."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from datasets.utils import logging

    had_bars, verbosity = not are_progress_bars_disabled(), logging.get_verbosity()
    disable_progress_bars()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            enable_progress_bars()
