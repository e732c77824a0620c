"""One recommendation, and what it rests on.

A difference between two settings counts where it is above twice the standard error of the difference of their means
(the noise between seeds, pooled over all settings with several), and above the sweep's tolerance: a smaller gain isn't
worth a dearer deployment. Of the settings that don't differ from the best one, the cheapest to deploy is the one to
ship, then the one that forgot least.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from converter.report.commands import conversion_command
from converter.training.sweep.results import Deployable, TrialResult
from converter.training.sweep.summaries import Summary, best_by_head, cost, noise_of, outcome_of, summaries
from converter.training.sweep.words import deployed_words, loss_words, other_words, setting_words, share_words


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The setting to ship: its best trial, the cheapest way to deploy it, the command for it, and the reason."""

    summary: Summary
    deployable: Deployable
    command: str
    reason: tuple[str, ...]
    caveats: tuple[str, ...]

    @property
    def trial(self) -> TrialResult:
        return self.summary.best


@dataclass(frozen=True, slots=True)
class NoRecommendation:
    """Nothing can be shipped, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Scale:
    """What differences are measured by: the noise between seeds, None where it isn't known, and the tolerance."""

    noise: float | None
    tolerance: float

    def counts_from(self, one: Summary, other: Summary) -> float:
        error = (self.noise or 0.0) * math.sqrt(1 / len(one.trials) + 1 / len(other.trials))
        return max(2 * error, self.tolerance)


def recommend(results: Sequence[TrialResult], tolerance: float) -> Recommendation | NoRecommendation:
    """Choose one setting; ``tolerance`` is a share of the best eval loss."""
    found = summaries(results)
    ways = {one: way for one in found if (way := one.deployable)}
    if not ways:
        return NoRecommendation(_why_nothing(results, found))
    best = min(ways, key=lambda one: one.mean)
    scale = _Scale(noise_of(found), tolerance * best.mean)
    equal = [one for one in ways if one.mean - best.mean <= scale.counts_from(one, best)]
    chosen = min(equal, key=lambda one: (*cost(ways[one]), _or_infinite(one.forgetting), one.mean))
    reason = (
        _own_numbers(chosen, ways[chosen]),
        _against_best(chosen, best, ways, scale),
        *(
            _against_head(chosen, one, ways[one], scale)
            for one in best_by_head(tuple(ways))
            if one not in (chosen, best)
        ),
        _forgetting(chosen),
    )
    caveats = (*_noise_caveats(chosen, scale), *_left_out(results, found))
    trial, way = chosen.best, ways[chosen]
    command = conversion_command(str(trial.directory), str(trial.settings["base"]), way.kind)
    return Recommendation(chosen, way, command, reason, caveats)


def _own_numbers(chosen: Summary, way: Deployable) -> str:
    n_seeds = len(chosen.trials)
    mean = f", the mean of {n_seeds} seeds" if n_seeds > 1 else ""
    return (
        f"{_capital(setting_words(chosen.values))}: eval loss {loss_words(chosen.mean)}{mean}; {deployed_words(way)}."
    )


def _against_best(chosen: Summary, best: Summary, ways: Mapping[Summary, Deployable], scale: _Scale) -> str:
    if chosen is not best:
        return (
            f"The lowest eval loss, {loss_words(best.mean)} of {setting_words(best.values)}, is "
            f"{_distance(chosen, best, scale)}; it would take {deployed_words(ways[best])}."
        )
    others = [one for one in ways if one is not best]
    if not others:
        return "It is the only setting that ran to its end and can be deployed."
    second = min(others, key=lambda one: one.mean)
    return (
        f"That is the lowest of {len(ways)} settings; the next is {loss_words(second.mean)}, "
        f"of {setting_words(second.values)}."
    )


def _against_head(chosen: Summary, other: Summary, way: Deployable, scale: _Scale) -> str:
    """What the best of another head has, and whether that differs."""
    difference = other.mean - chosen.mean
    place = f"{loss_words(abs(difference))} {'above' if difference > 0 else 'below'}"
    verdict = (
        "no difference that counts" if abs(difference) <= scale.counts_from(chosen, other) else "a real difference"
    )
    return (
        f"Head {other.head} at its best, {other_words(other.values)}, has {loss_words(other.mean)}: {place}, "
        f"{verdict}; {deployed_words(way)}."
    )


def _distance(chosen: Summary, best: Summary, scale: _Scale) -> str:
    counts_from = scale.counts_from(chosen, best)
    below = f"{loss_words(chosen.mean - best.mean)} below"
    if scale.noise is not None and counts_from > scale.tolerance:
        return (
            f"{below}, within the noise between seeds ({scale.noise:.4f}; differences count from {counts_from:.4f} on)"
        )
    return f"{below}, and differences are worth paying for from {counts_from:.4f} on"


def _forgetting(chosen: Summary) -> str:
    outcome = outcome_of(chosen.best)
    if outcome.forgetting is None:
        return "What it forgot of general text was not measured."
    before, after = outcome.perplexity_of_base, outcome.perplexity
    grown = share_words(outcome.forgetting)
    return f"Perplexity on general text: {before:.2f} before training, {after:.2f} after ({grown})."


def _noise_caveats(chosen: Summary, scale: _Scale) -> Iterator[str]:
    if scale.noise is None:
        yield (
            "No setting was run with a second seed: the noise between seeds isn't known, and differences below "
            f"{loss_words(scale.tolerance)} were taken for none."
        )
    elif len(chosen.trials) == 1:
        yield "This setting was run with one seed; the noise is known from others."


def _left_out(results: Sequence[TrialResult], found: Sequence[Summary]) -> Iterator[str]:
    heads = {one.head for one in found}
    if len(heads) == 1:
        yield f"Only head {heads.pop()} was run to its end: what another head would bring isn't known."
    refused = [one for one in found if not one.deployable]
    if refused:
        yield f"Left out, as it can't be deployed: {_refusal(refused[0])}{_and_others(len(refused) - 1)}."
    failed = [result for result in results if result.state == "failed"]
    if failed:
        yield f"{_n_trials(len(failed))} failed; trial {failed[0].number:04}: {failed[0].reason}"
    n_running = sum(result.state == "running" for result in results)
    if n_running:
        yield f"{_n_trials(n_running)} had not ended when this was written."


def _why_nothing(results: Sequence[TrialResult], found: Sequence[Summary]) -> str:
    if found:
        return f"Nothing that was trained can be deployed as wanted: {_refusal(found[0])}{_and_others(len(found) - 1)}."
    failed = [result for result in results if result.state == "failed"]
    why = f"; trial {failed[0].number:04} failed: {failed[0].reason}" if failed else ""
    return f"None of {_n_trials(len(results))} ran to its end{why}"


def _refusal(summary: Summary) -> str:
    refused = outcome_of(summary.best).deployments
    codes = ", ".join(dict.fromkeys(code for way in refused for code in way.refused_by))
    return f"trial {summary.best.number:04}, {setting_words(summary.values)} ({codes})"


def _and_others(n: int) -> str:
    return f", and {n} more" if n else ""


def _n_trials(n: int) -> str:
    return "1 trial" if n == 1 else f"{n} trials"


def _capital(words: str) -> str:
    return words[0].upper() + words[1:]


def _or_infinite(share: float | None) -> float:
    return math.inf if share is None else share
