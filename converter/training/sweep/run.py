"""A sweep: trial after trial until all are run, with the report rewritten after each."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from converter.errors import ConverterError
from converter.report.printable import printable
from converter.training.settings import TrainingSettings
from converter.training.sweep.html import html_report
from converter.training.sweep.recommendation import NoRecommendation, Recommendation, recommend
from converter.training.sweep.record import keep_record, record_of
from converter.training.sweep.results import TrialResult, csv_table, read_report, read_results
from converter.training.sweep.space import offered, read_sweep
from converter.training.sweep.study import Claim, Search, locked, values_of
from converter.training.sweep.words import loss_words, setting_words
from converter.training.watch import Stopped, Watch
from converter.writing.whole_file import whole_file

Train = Callable[[TrainingSettings, Watch], object]


@dataclass(frozen=True, slots=True)
class SweepOutcome:
    """All trials, the one recommendation, and where the report lies; ``trials.csv`` is beside it."""

    results: tuple[TrialResult, ...]
    recommendation: Recommendation | NoRecommendation
    report: Path


def sweep(  # noqa: PLR0913  what every trial shares, and where they lie
    path: str, settings: TrainingSettings, directory: Path, train: Train, watch: Watch, *, base_has_biases: bool
) -> SweepOutcome:
    """Run the sweep of a TOML file, or "default", in ``directory``; a sweep that was begun there goes on.

    Raises ConverterError where the directory holds another sweep, where nothing could be compared, or where all of the
    first trials fail.
    """
    plan = read_sweep(path)
    space = offered(plan.space, settings, base_has_biases=base_has_biases)
    _check_comparable(settings)
    _make(directory)
    with locked(directory):
        keep_record(directory, record_of(plan, space, settings))
    search = Search(directory, plan, space, settings)
    while _one_trial(search, train, watch):
        write_report(directory, plan.tolerance)
        search.check_not_all_failed()
    return write_report(directory, plan.tolerance)


def write_report(directory: Path, tolerance: float) -> SweepOutcome:
    """Write trials.csv and report.html from what lies in the directory."""
    with locked(directory):
        results = read_results(directory)
        recommendation = recommend(results, tolerance)
        report = directory / "report.html"
        _write(directory / "trials.csv", csv_table(results))
        _write(report, html_report(results, recommendation))
    return SweepOutcome(results, recommendation, report)


def _one_trial(search: Search, train: Train, watch: Watch) -> bool:
    """Run the next trial; False where there is none left. Any trial may fail, as long as not all do."""
    with search.claimed() as claim:
        if claim is None:
            return False
        name = claim.settings.output.name
        watch.says(f"Trial {claim.place} of {search.n_trials} ({name}): {_words(claim)}")
        try:
            train(claim.settings, _TrialWatch(watch, search, claim))
            search.completed(claim.trial, eval_loss := _eval_loss(claim.settings.output))
            watch.says(f"Trial {name}: eval loss {loss_words(eval_loss)}")
        except Stopped as stopped:
            search.pruned(claim.trial)
            watch.says(f"Trial {name}: pruned at step {stopped.step}, eval loss {loss_words(stopped.eval_loss)}")
        except ConverterError as error:
            watch.says(printable(f"Trial {name} failed: {error}"))
            search.failed(claim.trial, str(error))
        return True


@dataclass(frozen=True, slots=True)
class _TrialWatch:
    """The sweep's watch of one trial, which the pruner may end."""

    watch: Watch
    search: Search
    claim: Claim

    def begins(self, n_steps: int) -> None:
        self.watch.begins(n_steps)

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        self.watch.logged(step, values)

    def says(self, line: str) -> None:
        """Nothing: the sweep has a line of its own for each trial, and its report lies in the trial's directory."""

    def stops(self, step: int, eval_loss: float) -> bool:
        return self.search.stops(self.claim.trial, step, eval_loss) or self.watch.stops(step, eval_loss)


def _words(claim: Claim) -> str:
    values = values_of(claim.trial)
    return f"{setting_words(values)}, seed {values.seed}"


def _eval_loss(output: Path) -> float:
    eval_loss: float | None = read_report(output)["eval_loss"]
    if eval_loss is None or not math.isfinite(eval_loss):
        raise ConverterError(f"{output}: its eval loss is {eval_loss}")
    return eval_loss


def _check_comparable(settings: TrainingSettings) -> None:
    if settings.eval_data is None and settings.eval_split == 0:
        raise ConverterError("a sweep compares eval losses: give --eval-data, or an --eval-split above 0")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConverterError(
            "each trial of a sweep runs in one process; start the same command twice to run two at once"
        )


def _make(directory: Path) -> None:
    try:
        (directory / "trials").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConverterError(f"{directory}: can't be made: {error.strerror or error}") from error


def _write(path: Path, text: str) -> None:
    with whole_file(path) as file:
        file.write(text.encode())
