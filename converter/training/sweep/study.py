"""Which trial comes next, and how each one ended: optuna's study, kept in SQLite.

SQLite, because several processes of one machine write to it and any of them may be killed: a transaction is there
whole or not at all. (A line of optuna's journal that a kill cut short makes the whole journal unreadable.) What one
process decides, it decides under one lock file. A second one is held while a trial runs; the kernel drops it with the
process, which tells a dead trial from a live one: https://py-filelock.readthedocs.io

optuna's ask and tell: https://optuna.readthedocs.io/en/stable/tutorial/20_recipes/009_ask_and_tell.html
"""

import random
import shutil
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain, product
from pathlib import Path
from typing import Final

import optuna
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.pool import NullPool

from converter.errors import ConverterError
from converter.read.files import could_not_read, real, require_readable
from converter.read.limits import METRICS_NBYTES
from converter.training.settings import TrainingSettings, settings_data, working_directory
from converter.training.sweep.space import Pruner, Space, Sweep, Values, anchors, canonical, combinations, settings_of

STUDY_NAME: Final = "study.db"
_WAIT_SECONDS: Final = 60  # for another process's transaction
_N_DRAWS: Final = 20  # of the sampler, before chance picks among what wasn't tried
_ELSEWHERE: Final = (TrialState.FAIL, TrialState.WAITING)

# What a trial carries in the study beside optuna's own fields.
VALUES: Final = "values"
SETTINGS: Final = "settings"
REASON: Final = "reason"  # why it failed
_PRUNABLE: Final = "prunable"


@dataclass(frozen=True, slots=True)
class Claim:
    """A trial that this process is to run. ``place`` is how many there are by now, this one included."""

    trial: optuna.Trial
    place: int
    settings: TrainingSettings


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One process at a time decides, and writes the report."""
    with FileLock(directory / ".study.lock"):
        yield


def open_study(directory: Path, pruner: Pruner = "none") -> optuna.Study:
    """The study of a sweep's directory, made where there is none. Call it under the lock."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with could_not_read(directory / STUDY_NAME):
        require_readable(directory / STUDY_NAME, METRICS_NBYTES)
    storage = optuna.storages.RDBStorage(
        f"sqlite:///{real(directory) / STUDY_NAME}",
        # Without a pool no connection outlives the question that it was opened for.
        engine_kwargs={"connect_args": {"timeout": _WAIT_SECONDS}, "poolclass": NullPool},
    )
    # Four whole trials say what a usual loss is.
    chosen = optuna.pruners.MedianPruner(n_startup_trials=4) if pruner == "median" else optuna.pruners.NopPruner()
    return optuna.create_study(storage=storage, study_name="sweep", load_if_exists=True, pruner=chosen)


def own_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count. One whose process died failed without a reason; one that waits hasn't begun."""
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state not in _ELSEWHERE or REASON in trial.user_attrs
    ]


def trial_directory(directory: Path, number: int) -> Path:
    return directory / "trials" / f"{number:04}"


def values_of(trial: FrozenTrial | optuna.Trial) -> Values:
    return Values(**trial.user_attrs[VALUES])


class Search:
    """A sweep's study, as one worker uses it."""

    def __init__(self, directory: Path, sweep: Sweep, space: Space, settings: TrainingSettings) -> None:
        self._directory = directory
        self._sweep = sweep
        self._space = space
        self._settings = settings
        self._every = combinations(space)
        with locked(directory):
            self._study = open_study(directory, sweep.pruner)

    @property
    def n_trials(self) -> int:
        return len(self._every) if self._sweep.sampler == "grid" else self._sweep.n_trials

    @contextmanager
    def claimed(self) -> Iterator[Claim | None]:
        """The next trial, this process's own until the block ends; None where there is nothing left to try."""
        with ExitStack() as held:
            with locked(self._directory):
                claim = self._next()
                if claim:
                    held.enter_context(FileLock(_lock_path(claim.settings.output)))
            yield claim

    def stops(self, trial: optuna.Trial, step: int, eval_loss: float) -> bool:
        """Note an evaluation down; whether the pruner ends the trial at it."""
        with locked(self._directory):
            trial.report(eval_loss, step)
            return bool(trial.user_attrs[_PRUNABLE]) and trial.should_prune()

    def completed(self, trial: optuna.Trial, eval_loss: float) -> None:
        with locked(self._directory):
            self._study.tell(trial, eval_loss)

    def pruned(self, trial: optuna.Trial) -> None:
        """The last loss that was noted down stays the trial's."""
        with locked(self._directory):
            self._study.tell(trial, state=TrialState.PRUNED)

    def failed(self, trial: optuna.Trial, reason: str) -> None:
        with locked(self._directory):
            trial.set_user_attr(REASON, reason)
            self._study.tell(trial, state=TrialState.FAIL)

    def check_not_all_failed(self) -> None:
        """Raise ConverterError where three trials failed and none did anything else."""
        with locked(self._directory):
            ended = [trial for trial in own_trials(self._study) if trial.state != TrialState.RUNNING]
        if len(ended) >= 3 and all(trial.state == TrialState.FAIL for trial in ended):
            raise ConverterError(f"all {len(ended)} trials failed, the last one with: {ended[-1].user_attrs[REASON]}")

    def _next(self) -> Claim | None:
        self._give_up_the_dead()
        tried = own_trials(self._study)
        if len(tried) >= self.n_trials or not (self._waits() or self._enqueue(tried)):
            return None
        trial = self._study.ask(_distributions(self._space))
        settings = settings_of(values_of(trial), self._settings, trial_directory(self._directory, trial.number))
        trial.set_user_attr(SETTINGS, settings_data(settings))
        return Claim(trial, len(tried) + 1, settings)

    def _waits(self) -> bool:
        """Whether a process was killed between choosing a trial and beginning it."""
        return bool(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _enqueue(self, tried: Sequence[FrozenTrial]) -> bool:
        chosen = self._choose(tried)
        if chosen is None:
            return False
        values, prunable = chosen
        self._study.enqueue_trial(asdict(values), user_attrs={VALUES: asdict(values), _PRUNABLE: prunable})
        return True

    def _give_up_the_dead(self) -> None:
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            output = trial_directory(self._directory, trial.number)
            if not _is_held(_lock_path(output)):
                self._study.tell(trial.number, state=TrialState.FAIL)
                for left in (working_directory(output), output):  # whole, where its end was not noted down any more
                    shutil.rmtree(left, ignore_errors=True)

    def _choose(self, tried: Sequence[FrozenTrial]) -> tuple[Values, bool] | None:
        """The values to try next, and whether the pruner may end them: the main comparison runs to its end."""
        seen = {values_of(trial) for trial in tried}
        every = self._study.get_trials(deepcopy=False)
        lost = ((values_of(trial), trial.user_attrs[_PRUNABLE]) for trial in every)
        return next(
            ((values, prunable) for values, prunable in chain(lost, self._plan(tried, seen)) if values not in seen),
            None,
        )

    def _plan(self, tried: Sequence[FrozenTrial], seen: AbstractSet[Values]) -> Iterator[tuple[Values, bool]]:
        if self._sweep.sampler == "grid":
            yield from ((values, True) for values in self._every)
            return
        first = anchors(self._space)
        n_repeats = (len(self._space.seed) - 1) * len(self._space.head)
        n_searched = sum(values.seed == self._space.seed[0] for values in seen)
        if n_searched < max(len(first), self.n_trials - n_repeats):
            yield from ((values, False) for values in first)
            yield from ((values, True) for values in self._draws(tried, seen))
        yield from ((values, False) for values in self._best_with_other_seeds(tried))

    def _draws(self, tried: Sequence[FrozenTrial], seen: AbstractSet[Values]) -> Iterator[Values]:
        """What the sampler draws, then, for a sampler may insist, what chance does."""
        first = self._space.seed[0]
        left = [values for values in self._every if values.seed == first and values not in seen]
        if not left:
            return
        seed = self._sweep.seed + len(tried)  # however often the sweep was started again
        distributions = _distributions(self._space)
        del distributions["seed"]
        study = _searched(tried, distributions, first, seed)
        for _ in range(_N_DRAWS):
            drawn = canonical(self._space, Values(**study.ask(distributions).params, seed=first))
            if drawn in left:
                yield drawn
        yield random.Random(seed).choice(left)  # noqa: S311  no secret

    def _best_with_other_seeds(self, tried: Sequence[FrozenTrial]) -> Iterator[Values]:
        first, *others = self._space.seed
        whole = [trial for trial in tried if trial.state == TrialState.COMPLETE and values_of(trial).seed == first]
        for seed, head in product(others, self._space.head):
            of_head = [trial for trial in whole if values_of(trial).head == head]
            if of_head:
                best = min(of_head, key=lambda trial: trial.values[0])
                yield replace(values_of(best), seed=seed)


def _searched(
    tried: Sequence[FrozenTrial], distributions: dict[str, BaseDistribution], first: int, seed: int
) -> optuna.Study:
    """A study in memory of the trials with the first seed: what is drawn from it leaves no trace in the real one."""
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
    for trial in tried:
        values = asdict(values_of(trial))
        if values.pop("seed") == first:
            study.add_trial(
                optuna.create_trial(
                    state=trial.state,
                    value=trial.value,
                    params=values,
                    distributions=distributions,
                    intermediate_values=trial.intermediate_values,
                )
            )
    return study


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    lists = {field.name: getattr(space, field.name) for field in fields(Values)}
    for flag in ("use_rslora", "lora_bias"):  # false is how a setting that can't have it is written
        lists[flag] = tuple(dict.fromkeys((False, *lists[flag])))
    return {name: CategoricalDistribution(listed) for name, listed in lists.items()}


def _lock_path(output: Path) -> Path:
    return output.with_name(f".{output.name}.lock")


def _is_held(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
