"""sweep.json: what a sweep's directory is a sweep of. Its trials compare only where all else is equal."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from converter.digests import file_digest_of
from converter.errors import ConverterError
from converter.read.files import exists, read_text
from converter.read.limits import SETTINGS_NBYTES
from converter.training.settings import TrainingSettings, settings_data
from converter.training.sweep.space import VARIED, Space, Sweep
from converter.writing.whole_file import whole_file

RECORD_NAME: Final = "sweep.json"
# What may change between two starts of one sweep: where it lies, and how many trials there are to be.
_FREE: Final = ("output", "resume")


def record_of(sweep: Sweep, space: Space, settings: TrainingSettings) -> dict[str, Any]:
    """What all trials of a sweep have in common, with the digests of local data files."""
    fixed = {name: value for name, value in settings_data(settings).items() if name not in (*VARIED, *_FREE)}
    search = {name: value for name, value in asdict(sweep).items() if name not in ("space", "n_trials")}
    texts = {name: fixed[name] for name in ("data", "eval_data", "general_text") if fixed[name]}
    digests = {f"{name} (SHA-256)": file_digest_of(Path(text)) for name, text in texts.items() if Path(text).is_file()}
    # As JSON gives it back: lists for tuples.
    data: dict[str, Any] = json.loads(
        json.dumps({"settings": fixed | digests, "search": search, "space": asdict(space)})
    )
    return data


def keep_record(directory: Path, record: Mapping[str, Any]) -> None:
    """Write sweep.json; where there is one, raise ConverterError for the first thing in which the two differ."""
    path = directory / RECORD_NAME
    if not exists(path):
        with whole_file(path) as file:
            file.write(json.dumps(record, indent=2).encode())
        return
    for table, found in read_record(directory).items():
        for name, value in found.items():
            wanted = record.get(table, {}).get(name)
            if wanted != value:
                raise ConverterError(
                    f"{directory}: holds another sweep, with {name} {json.dumps(value)}, not {json.dumps(wanted)}; "
                    "give another directory"
                )


def read_record(directory: Path) -> dict[str, Any]:
    path = directory / RECORD_NAME
    try:
        data: dict[str, dict[str, Any]] = json.loads(read_text(path, SETTINGS_NBYTES))
        return {table: dict(values) for table, values in data.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConverterError(f"{path}: can't be read as the record of a sweep: {error}") from error
