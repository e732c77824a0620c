"""The training report that lies beside an adapter: what it was made of, with what, and what came out. Plain data."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from converter.diagnostics import Kind
from converter.training.data import Source
from converter.training.planned import Deployable
from converter.training.settings import TrainingSettings, settings_data
from converter.version import __version__

REPORT_NAME: Final = "training_report.json"
_LIBRARIES: Final = ("accelerate", "datasets", "peft", "torch", "transformers", "trl")
_N_LAST: Final = 10


@dataclass(frozen=True, slots=True)
class Base:
    """The base: its fingerprint (None without norms that say one), its tie state as it came, its size."""

    path: str
    architecture: str
    fingerprint: str | None
    tie_word_embeddings: bool
    n_parameters: int


@dataclass(frozen=True, slots=True)
class Head:
    """The head's choice, and whether it was trained apart from the embedding."""

    choice: str
    untied: bool


@dataclass(frozen=True, slots=True)
class Data:
    """Samples learned from and held out, what was left out or cut for its length, and the longest one in tokens.

    ``sources`` are all files or splits with their counts, ``beside`` the files of a directory that are no data.
    """

    n_train: int
    n_eval: int
    n_dropped: int
    n_truncated: int
    longest: int
    sources: tuple[Source, ...] = ()
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GeneralText:
    """Perplexity on general text, before and after: what the adapter costs of what the base knew."""

    base: float
    adapter: float
    n_tokens: int


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """One run. ``train_loss`` is the mean of the last ten logged; eval losses are None where nothing was held out."""

    version: str
    settings: Mapping[str, Any]
    libraries: Mapping[str, str]
    base: Base
    head: Head
    data: Data
    n_trainable: int
    adapter_nbytes: int
    steps: int
    train_loss: float
    eval_loss: float | None
    eval_loss_of_base: float | None
    perplexity: GeneralText
    deployments: Mapping[Kind, Deployable]
    warnings: tuple[str, ...]
    seconds: float


def common_facts(settings: TrainingSettings) -> dict[str, Any]:
    """The fields that say with what a run was made."""
    return {
        "version": __version__,
        "settings": settings_data(settings),
        "libraries": {name: version(name) for name in _LIBRARIES},
    }


def mean_of_last(rows: Sequence[Mapping[str, float]]) -> float:
    """The mean of the last training losses."""
    losses = [row["loss"] for row in rows if "loss" in row][-_N_LAST:]
    return sum(losses) / len(losses)


def write_report(report: TrainingReport, directory: Path) -> None:
    """Write the report as JSON."""
    text = json.dumps(asdict(report), indent=2, ensure_ascii=False)
    (directory / REPORT_NAME).write_text(text + "\n", encoding="utf-8")
