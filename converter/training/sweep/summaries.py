"""Trials by setting: the mean over seeds, and how much seeds alone change a loss."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Final

from converter.diagnostics import Kind
from converter.training.settings import Head
from converter.training.sweep.results import Deployable, Outcome, TrialResult
from converter.training.sweep.space import Values

# By what a deployment asks of who serves it: a LoRA is swapped at run time, a merged model is one file of its own, an
# untied one has another head besides.
_RANKS: Final[dict[Kind, int]] = {"lora": 0, "model": 1, "untie-lora": 2, "untie-model": 2}


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """The whole runs of one setting, in the order of their seeds."""

    trials: tuple[TrialResult, ...]

    @property
    def values(self) -> Values:
        return self.trials[0].values

    @property
    def head(self) -> Head:
        return self.values.head

    @property
    def losses(self) -> tuple[float, ...]:
        return tuple(outcome_of(trial).eval_loss for trial in self.trials)

    @property
    def mean(self) -> float:
        return fmean(self.losses)

    @property
    def best(self) -> TrialResult:
        return min(self.trials, key=lambda trial: outcome_of(trial).eval_loss)

    @property
    def forgetting(self) -> float | None:
        """The mean over seeds of the share by which the perplexity on general text grew."""
        grown = [outcome_of(trial).forgetting for trial in self.trials]
        known = [share for share in grown if share is not None]
        return fmean(known) if known else None

    @property
    def deployable(self) -> Deployable | None:
        """The cheapest way to deploy it, of those it was made for; None where rules forbid them all."""
        wanted = self.best.settings.get("target")
        ways = (way for way in outcome_of(self.best).deployments if not wanted or way.kind == wanted)
        return min((way for way in ways if not way.refused_by), key=cost, default=None)


def outcome_of(trial: TrialResult) -> Outcome:
    """The outcome of a trial that is known to have one."""
    if trial.outcome is None:
        raise ValueError(f"trial {trial.number} is {trial.state}")
    return trial.outcome


def summaries(results: Iterable[TrialResult]) -> tuple[Summary, ...]:
    """The settings that were run to the end, by their first trial."""
    trials: dict[Values, list[TrialResult]] = {}
    for trial in results:
        if trial.outcome:
            trials.setdefault(replace(trial.values, seed=0), []).append(trial)
    return tuple(Summary(tuple(sorted(of_one, key=lambda trial: trial.values.seed))) for of_one in trials.values())


def best_by_head(found: Sequence[Summary]) -> tuple[Summary, ...]:
    """The best setting of each head that was tried, head none first."""
    heads = sorted({summary.head for summary in found}, key=lambda head: (head != "none", head))
    return tuple(min((one for one in found if one.head == head), key=lambda one: one.mean) for head in heads)


def side_by_side(found: Sequence[Summary]) -> tuple[tuple[Summary, ...], ...]:
    """Settings that differ by nothing but the head, head none first."""
    pairs: dict[Values, list[Summary]] = {}
    for summary in found:
        pairs.setdefault(replace(summary.values, seed=0, head="none"), []).append(summary)
    return tuple(
        tuple(sorted(same, key=lambda one: (one.head != "none", one.head))) for same in pairs.values() if len(same) > 1
    )


def noise_of(found: Iterable[Summary]) -> float | None:
    """The standard deviation between seeds, pooled over all settings that have several; None where none has."""
    repeated = [summary for summary in found if len(summary.trials) > 1]
    if not repeated:
        return None
    squares = sum((loss - summary.mean) ** 2 for summary in repeated for loss in summary.losses)
    return math.sqrt(squares / sum(len(summary.trials) - 1 for summary in repeated))


def cost(way: Deployable) -> tuple[int, float]:
    """What deployments are ordered by, the cheapest first."""
    return _RANKS[way.kind], math.inf if way.nbytes is None else way.nbytes
