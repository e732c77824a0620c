"""The adapter's directory, whole or not there: it is written aside, judged, and only then gets its name.

While a run lasts, all that it writes lies in ``<output>.training``: metrics.jsonl, checkpoint-*, the settings.
"""

import json
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from converter.checking import check_adapter
from converter.conversion import Refused
from converter.derive.adapter import read_adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import Report
from converter.errors import ConverterError
from converter.fingerprint import RECORD_NAME
from converter.read.files import could_not_read, exists, mode_of, named, read_text, require_readable
from converter.read.limits import CHECKPOINT_NBYTES, METRICS_NBYTES, SETTINGS_NBYTES
from converter.training.settings import TrainingSettings, settings_toml, working_directory
from converter.training.watch import Stopped
from converter.transformers_base import quiet

SETTINGS_NAME: Final = "train.toml"
METRICS_NAME: Final = "metrics.jsonl"
STATE_NAME: Final = "trainer_state.json"
_CARD_NAME: Final = "README.md"  # PEFT's model card: a form to be filled in
_CHECKPOINTS: Final = "checkpoint-*"
# What may differ between a run and its continuation.
_FREE: Final = frozenset({"resume", "save_steps", "output"})


def refuse_taken(output: Path) -> None:
    """Raise ConverterError where the output can't appear."""
    if exists(output):
        raise ConverterError(f"{output}: is there already; give another --output, or delete it first")
    if not output.absolute().parent.is_dir():
        raise ConverterError(f"{output.absolute().parent}: no such directory for --output")


@contextmanager
def working(settings: TrainingSettings) -> Iterator[Path]:
    """The run's own directory. It stays only with checkpoints to go on from; of a stopped run, its metrics stay.

    Raises ConverterError where it holds an earlier run that these settings don't continue.
    """
    directory = working_directory(settings.output)
    (_continue if settings.resume else _begin)(directory, settings)
    try:
        yield directory
    except Stopped:
        for checkpoint in named(directory, _CHECKPOINTS):
            shutil.rmtree(checkpoint)
        raise
    except BaseException:
        if not checkpoints(directory):
            shutil.rmtree(directory, ignore_errors=True)
        raise
    shutil.rmtree(directory)


def checkpoints(directory: Path) -> list[Path]:
    """The whole checkpoints of a run, the newest last. The trainer writes its state last of all (_save_checkpoint).

    Raises ConverterError where we may not look.
    """
    with could_not_read(directory):
        whole = [path for path in named(directory, _CHECKPOINTS) if mode_of(path / STATE_NAME, follow=False)]
    return sorted(whole, key=lambda path: int(path.name.rpartition("-")[2]))


def read_metrics(directory: Path) -> list[Mapping[str, float]]:
    """What a run logged; a line that was cut off when it was killed is left out."""
    path = directory / METRICS_NAME
    try:
        rows = [json.loads(line) for line in read_text(path, METRICS_NBYTES).splitlines() if line.endswith("}")]
        return [{**row, "step": int(row["step"])} for row in rows]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConverterError(f"{path}: is not what a run logs, a JSON object with its step a line: {error}") from error


def _begin(directory: Path, settings: TrainingSettings) -> None:
    if checkpoints(directory):
        raise ConverterError(f"{directory}: holds checkpoints; go on from them with --resume, or delete it first")
    if exists(directory) and not _is_of_a_run(directory):
        raise ConverterError(f"{directory}: is in the way, and no run's; move it, or give another --output")
    try:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
        (directory / SETTINGS_NAME).write_text(settings_toml(settings), encoding="utf-8")
        (directory / METRICS_NAME).touch()
    except OSError as error:
        raise ConverterError(f"{directory}: can't be written: {error.strerror or error}") from error


def _is_of_a_run(directory: Path) -> bool:
    """Whether all in it is a run's; one that was killed at its begin or end has left a part of that."""
    if not directory.is_dir():
        return False
    names = {path.name for path in directory.iterdir() if not path.match(_CHECKPOINTS)}
    return names <= {SETTINGS_NAME, METRICS_NAME}


def _continue(directory: Path, settings: TrainingSettings) -> None:
    found = checkpoints(directory)
    if not found:
        raise ConverterError(f"{directory}: no checkpoint to go on from; leave out --resume")
    for path in sorted(found[-1].iterdir()):
        with could_not_read(path):
            require_readable(path, METRICS_NBYTES if path.suffix == ".json" else CHECKPOINT_NBYTES)
    before = _settings(directory / SETTINGS_NAME)
    now = tomllib.loads(settings_toml(settings))
    for name in sorted((before.keys() | now.keys()) - _FREE):
        if before.get(name) != now.get(name):
            raise ConverterError(
                f"{directory}: was begun with {name} = {before.get(name)!r}, now it is {now.get(name)!r}; "
                "--resume goes on with the same settings"
            )
    _cut_metrics(directory, int(found[-1].name.rpartition("-")[2]))


def _settings(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path, SETTINGS_NBYTES))
    except (ValueError, RecursionError) as error:
        raise ConverterError(f"{path}: not TOML: {error}; leave out --resume, and delete {path.parent}") from error


def _cut_metrics(directory: Path, step: int) -> None:
    """Leave out what was logged after the checkpoint: it will be again."""
    kept = (row for row in read_metrics(directory) if row["step"] <= step)
    (directory / METRICS_NAME).write_text("".join(f"{json.dumps(row)}\n" for row in kept), encoding="utf-8")


def write_adapter(
    model: PeftModel, state: Mapping[str, Any], settings: TrainingSettings, tokenizer: PreTrainedTokenizerBase, to: Path
) -> None:
    """Write config and weights; a copy of the base's head only on request: the base has it.

    With a chat template of its own, the tokenizer lies beside it, for ``adapter-to-gguf --to model`` to follow.
    """
    with quiet():
        model.save_pretrained(str(to), state_dict=state, save_embedding_layers=settings.save_embedding_layers)
        if settings.chat_template:
            tokenizer.save_pretrained(to)
    (to / _CARD_NAME).unlink(missing_ok=True)


def write_record(directory: Path, found: str | None, base: BaseModel) -> None:
    """Note the base's fingerprint, which adapter-check and adapter-to-gguf compare (BM007)."""
    if found:
        record = {"fingerprint": found, "of": base.label}
        (directory / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def judge_saved(directory: Path, settings: TrainingSettings, base: BaseModel) -> Report:
    """The gate after the last step, numbers included. Raises Refused where the adapter can't be deployed."""
    report = check_adapter(read_adapter(directory), base, settings.deployment, values=True)
    report = replace(report, path=settings.output)
    if not report.passed:
        raise Refused(report)
    return report
