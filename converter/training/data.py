"""Reading samples: a file, a directory of files, or a data set of the hub, with the datasets library.

Formats and hub access: https://huggingface.co/docs/datasets/loading
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from converter.errors import ConverterError
from converter.training.samples import Sample, check_alike, kind_of, sample_of

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_FORMATS: Final = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet", ".txt": "text"}
_COMPRESSED: Final = (".bz2", ".gz", ".xz", ".zst")
_WANTED: Final = f"a file that ends in one of {', '.join(_FORMATS)}, a directory of such, or org/name on the hub"
_HUB_NAME: Final = re.compile(r"([\w-][\w.-]*/[\w.-]+)(?::([\w.-]+))?")


def read_samples(data: str, *splits: str) -> tuple[Sample, ...]:
    """All samples of ``data``; of several splits, the first of ``splits`` that is there, which is train by default."""
    dataset = _split(_loaded(data), data, splits or ("train",))
    rows: list[dict[str, Any]] = dataset.to_list()
    numbered = list(enumerate(rows, 1))
    if _formats(Path(data)) == {"text"}:
        numbered = [(number, row) for number, row in numbered if row["text"].strip()]
    if not numbered:
        raise _without_samples(data)
    kind = kind_of(dataset.column_names, rows, data)
    samples = tuple(sample_of(kind, row, f"{data}, sample {number}") for number, row in numbered)
    check_alike(samples)
    return samples


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


def _split(parts: "DatasetDict", data: str, splits: Sequence[str]) -> "Dataset":
    names = [name for name in splits if name in parts]
    if not names and len(parts) > 1:
        raise ConverterError(f"{data}: has no split {' or '.join(splits)}; found {', '.join(parts)}")
    return parts[names[0] if names else next(iter(parts))]


def _loaded(data: str) -> "DatasetDict":
    from glob import escape

    path = Path(data)
    if path.is_dir() and _formats(path):
        return _load_local(data, str(path.absolute()))
    if path.is_file() and (builder := _format(path)):
        if not path.stat().st_size:
            raise _without_samples(data)
        return _load_local(data, builder, data_files=escape(str(path.absolute())))
    name = _HUB_NAME.fullmatch(data)
    if path.exists() or not name or _format(path):
        raise ConverterError(f"{data}: {'no data of a known kind' if path.exists() else 'not found'}; wanted {_WANTED}")
    return _load(data, name[1], name[2])


def _format(path: Path) -> str | None:
    suffixes = [suffix for suffix in path.suffixes if suffix not in _COMPRESSED]
    return _FORMATS.get(suffixes[-1]) if suffixes else None


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if _format(file)) if path.is_dir() else [path]


def _formats(path: Path) -> set[str]:
    return {kind for file in _files(path) if (kind := _format(file))}


def _load_local(data: str, *arguments: str, **options: Any) -> "DatasetDict":
    """Load into memory: nothing is left behind in the user's cache."""
    if _formats(Path(data)) == {"csv"}:
        options |= _as_text(_files(Path(data))[0])
    with TemporaryDirectory() as cache:
        return _load(data, *arguments, cache_dir=cache, keep_in_memory=True, **options)


def _as_text(csv: Path) -> dict[str, Any]:
    """Take every cell as it stands: "NA" is no missing value, and 007 no number."""
    import pandas as pd
    from datasets import Features, Value

    try:
        columns = pd.read_csv(csv, nrows=0).columns
    except (OSError, ValueError) as error:
        raise ConverterError(f"{csv}: can't be read: {_reason(error)}") from error
    return {"features": Features({name: Value("string") for name in columns}), "keep_default_na": False}


def _load(data: str, *arguments: str, **options: Any) -> "DatasetDict":
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        with _quiet():
            parts: DatasetDict = load_dataset(*arguments, **options)
    except (DatasetsError, OSError, ValueError) as error:
        # The only word the library has for data without rows.
        if "corresponds to no data" in str(error):
            raise _without_samples(data) from error
        raise ConverterError(f"{data}: can't be read: {_broken_line(Path(data)) or _reason(error)}") from error
    return parts


def _without_samples(data: str) -> ConverterError:
    return ConverterError(f"{data}: holds no samples")


def _reason(error: Exception) -> str:
    return " ".join(str(error.__cause__ or error).split())


def _broken_line(path: Path) -> str | None:
    """Say where a JSON file is none. Arrow counts rows of a block, and doesn't count empty lines."""
    if _format(path) != "json" or path.suffix in _COMPRESSED or not os.access(path, os.R_OK):
        return None
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    documents = [text] if text.lstrip().startswith("[") else text.split("\n")
    for number, document in enumerate(documents, 1):
        try:
            json.loads(document or "null")
        except json.JSONDecodeError as error:
            return f"line {number + error.lineno - 1} is no JSON ({error.msg} in column {error.colno})"
    return None


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
