"""What came of each trial, read from the trial's own files; the study says how it ended."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from optuna.trial import FrozenTrial, TrialState

from converter.diagnostics import Kind
from converter.errors import ConverterError
from converter.read.files import exists, read_text
from converter.read.limits import METRICS_NBYTES
from converter.training.settings import working_directory
from converter.training.sweep.space import Values
from converter.training.sweep.study import (
    REASON,
    SETTINGS,
    open_study,
    own_trials,
    trial_directory,
    values_of,
)

State = Literal["completed", "pruned", "failed", "running"]
_STATES: Final[dict[TrialState, State]] = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


@dataclass(frozen=True, slots=True)
class Deployable:
    """What one way to deploy an adapter costs, or the rules that forbid it."""

    kind: Kind
    refused_by: tuple[str, ...]
    nbytes: int | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a whole run reports. Perplexities are of general text, before and after training."""

    eval_loss: float
    eval_loss_of_base: float | None
    train_loss: float | None
    perplexity_of_base: float | None
    perplexity: float | None
    n_trainable: int
    adapter_nbytes: int
    deployments: tuple[Deployable, ...]
    seconds: float

    @property
    def forgetting(self) -> float | None:
        """By what share the perplexity on general text grew."""
        if self.perplexity is None or not self.perplexity_of_base:
            return None
        return self.perplexity / self.perplexity_of_base - 1


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One trial. ``curve`` is the eval loss by step; ``reason`` says why a trial failed."""

    number: int
    directory: Path
    state: State
    reason: str
    values: Values
    settings: Mapping[str, Any]
    steps: int
    curve: tuple[tuple[int, float], ...]
    outcome: Outcome | None

    @property
    def eval_loss(self) -> float | None:
        """At the end; of a pruned trial the last one."""
        if self.outcome:
            return self.outcome.eval_loss
        return self.curve[-1][1] if self.curve else None


def read_results(directory: Path) -> tuple[TrialResult, ...]:
    """Every trial of a sweep's directory that was begun, but those whose process died."""
    return tuple(
        _result(directory, trial) for trial in own_trials(open_study(directory)) if SETTINGS in trial.user_attrs
    )


def read_report(directory: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(read_text(directory / "training_report.json", METRICS_NBYTES))
    return data


def csv_table(results: Sequence[TrialResult]) -> str:
    """One line a trial: how it ended, every setting, every number."""
    text = io.StringIO()
    rows = [_row(result) for result in results]
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _result(directory: Path, trial: FrozenTrial) -> TrialResult:
    output = trial_directory(directory, trial.number)
    state, reason, outcome = _STATES[trial.state], trial.user_attrs.get(REASON, ""), None
    if state == "completed":
        try:
            outcome = _outcome(read_report(output))
        except (ConverterError, ValueError) as error:
            state, reason = "failed", f"its report can't be read any more: {error}"
    steps, curve = _metrics(output if outcome else working_directory(output))
    return TrialResult(
        trial.number, output, state, reason, values_of(trial), trial.user_attrs[SETTINGS], steps, curve, outcome
    )


def _outcome(report: Mapping[str, Any]) -> Outcome:
    perplexity = report["perplexity"] or {}
    return Outcome(
        eval_loss=report["eval_loss"],
        eval_loss_of_base=report["eval_loss_of_base"],
        train_loss=report["train_loss"],
        perplexity_of_base=perplexity.get("base"),
        perplexity=perplexity.get("adapter"),
        n_trainable=report["n_trainable"],
        adapter_nbytes=report["adapter_nbytes"],
        deployments=tuple(
            Deployable(kind, tuple(found["refused_by"]), found["nbytes"])
            for kind, found in report["deployments"].items()
        ),
        seconds=report["seconds"],
    )


def _metrics(directory: Path) -> tuple[int, tuple[tuple[int, float], ...]]:
    """The last step of metrics.jsonl and the eval losses; a run that is going on may be within a line."""
    path = directory / "metrics.jsonl"
    lines = read_text(path, METRICS_NBYTES).splitlines(keepends=True) if exists(path) else []
    logged = [json.loads(line) for line in lines if line.endswith("\n")]
    curve = tuple((line["step"], line["eval_loss"]) for line in logged if line.get("eval_loss") is not None)
    return max((line["step"] for line in logged), default=0), curve


def _row(result: TrialResult) -> dict[str, object]:
    settings = {name: value for name, value in result.settings.items() if name != "output"}
    row: dict[str, object] = {"trial": result.number, "state": result.state, "reason": result.reason, **settings}
    row |= {"steps": result.steps, "eval_loss": result.eval_loss}
    if outcome := result.outcome:
        forgetting = outcome.forgetting
        row |= {
            "eval_loss_of_base": outcome.eval_loss_of_base,
            "train_loss": outcome.train_loss,
            "perplexity_of_base": outcome.perplexity_of_base,
            "perplexity": outcome.perplexity,
            "forgetting_percent": None if forgetting is None else 100 * forgetting,
            "n_trainable": outcome.n_trainable,
            "adapter_nbytes": outcome.adapter_nbytes,
            "seconds": outcome.seconds,
        }
        for deployable in outcome.deployments:
            row[f"{deployable.kind}_nbytes"] = deployable.nbytes
            row[f"{deployable.kind}_refused_by"] = " ".join(deployable.refused_by)
    return row
