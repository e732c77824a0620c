"""What is recommended, and what the reason says, on results made by hand."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from converter.diagnostics import Kind
from converter.training.settings import Head
from converter.training.sweep.recommendation import NoRecommendation, Recommendation, recommend
from converter.training.sweep.results import Deployable, Outcome, State, TrialResult
from converter.training.sweep.space import Values
from converter.training.sweep.summaries import noise_of, summaries

ONE: Values = Values(0, 2e-4, 0.05, 2.0, False, "none", False, 16, "none")
WAYS: dict[Head, dict[Kind, int | None]] = {
    "none": {"lora": 19_000_000, "model": 271_000_000},
    "lora": {"lora": None, "model": None, "untie-model": 327_000_000},
}


def trial(loss: float, **values: Any) -> TrialResult:
    """A whole run; what its head can't be deployed as is refused by HD001."""
    chosen = replace(ONE, **values)
    ways = tuple(Deployable(kind, () if nbytes else ("HD001",), nbytes) for kind, nbytes in WAYS[chosen.head].items())
    outcome = Outcome(loss, 3.0, loss, 14.1, 14.6, 1, 1, ways, 1.0)
    number = abs(hash((chosen, loss))) % 10000
    return TrialResult(
        number, Path("trials/0007"), "completed", "", chosen, {"base": "b", "target": None}, 6, (), outcome
    )


def ended(state: State, reason: str = "") -> TrialResult:
    return replace(trial(1.0, learning_rate=9e-4), state=state, reason=reason, outcome=None)


def refused(result: TrialResult, *codes: str) -> TrialResult:
    assert result.outcome
    ways = tuple(replace(way, refused_by=codes) for way in result.outcome.deployments)
    return replace(result, outcome=replace(result.outcome, deployments=ways))


def advised(results: Iterable[TrialResult]) -> Recommendation:
    advice = recommend(tuple(results), 0.01)
    assert isinstance(advice, Recommendation)
    return advice


def seeds(losses: Iterable[float], **values: Any) -> list[TrialResult]:
    return [trial(loss, seed=seed, **values) for seed, loss in enumerate(losses)]


def test_a_head_within_the_noise_is_not_worth_it() -> None:
    none, lora = seeds([1.20, 1.26, 1.23]), seeds([1.18, 1.24, 1.21], head="lora")
    advice = advised(none + lora)
    assert advice.trial is none[0]
    assert "1.2300, the mean of 3 seeds; a LoRA of 19.0 MB" in advice.reason[0]
    assert "0.0200 below, within the noise between seeds (0.0300; differences count from 0.0490 on)" in advice.reason[1]
    assert "an untied model of its own (327 MB)" in advice.reason[1]
    assert advice.caveats == ()


def test_a_head_that_is_far_better_is() -> None:
    none, lora = seeds([1.20, 1.21, 1.22]), seeds([1.00, 1.01, 1.02], head="lora")
    advice = advised(none + lora)
    assert advice.trial is lora[0]
    assert advice.command == "adapter-to-gguf trials/0007 --base b --untie -o model.gguf"
    assert "Head none at its best" in advice.reason[2]
    assert "0.2000 above, a real difference; a LoRA of 19.0 MB" in advice.reason[2]


def test_more_seeds_tell_smaller_differences_apart() -> None:
    few = advised([*seeds([1.20, 1.24]), *seeds([1.16, 1.20], head="lora")])
    many = advised([*seeds([1.20, 1.24] * 10), *seeds([1.16, 1.20] * 10, head="lora")])
    assert (few.trial.values.head, many.trial.values.head) == ("none", "lora")


def test_below_the_tolerance_nothing_counts_however_little_noise_there_is() -> None:
    advice = advised([*seeds([1.2000, 1.2001]), *seeds([1.1900, 1.1901], head="lora")])
    assert advice.trial.values.head == "none"
    assert "differences are worth paying for from 0.0119 on" in advice.reason[1]


def test_a_smaller_lora_is_cheaper() -> None:
    large = trial(1.20, r=64)
    assert large.outcome
    ways = (Deployable("lora", (), 76_000_000),)
    large = replace(large, outcome=replace(large.outcome, deployments=ways))
    assert advised([trial(1.205), large]).trial.values.r == 16
    assert advised([trial(1.305), large]).trial.values.r == 64


def test_at_the_same_cost_the_one_that_forgot_less() -> None:
    other = trial(1.199, learning_rate=5e-4)
    assert other.outcome
    forgetful = replace(other, outcome=replace(other.outcome, perplexity=20.0))
    assert advised([trial(1.2), forgetful]).trial.values.learning_rate == 2e-4
    assert "14.10 before training, 14.60 after (+3.5 %)" in advised([trial(1.2)]).reason[-1]


def test_what_cannot_be_deployed_never_is() -> None:
    best = refused(trial(0.5), "GG004", "HD001")
    advice = advised([best, trial(1.2, r=32)])
    assert advice.trial.values.r == 32
    assert any("Left out" in caveat and "(GG004, HD001)" in caveat for caveat in advice.caveats)
    nothing = recommend((best,), 0.01)
    assert isinstance(nothing, NoRecommendation)
    assert "can be deployed as wanted" in nothing.reason
    assert "GG004, HD001" in nothing.reason


def test_the_wanted_target_is_the_only_one_that_counts() -> None:
    lora = replace(trial(1.0, head="lora"), settings={"base": "b", "target": "lora"})
    none = replace(trial(1.2), settings={"base": "b", "target": "model"})
    advice = advised([lora, none])
    assert (advice.trial.values.head, advice.deployable.kind) == ("none", "model")


def test_it_says_what_is_not_known() -> None:
    (no_repeats, one_head) = advised([trial(1.2)]).caveats
    assert "No setting was run with a second seed: the noise between seeds isn't known" in no_repeats
    assert one_head == "Only head none was run to its end: what another head would bring isn't known."
    assert "not measured" in advised([unmeasured(trial(1.2))]).reason[-1]


def unmeasured(result: TrialResult) -> TrialResult:
    assert result.outcome
    return replace(result, outcome=replace(result.outcome, perplexity=None))


def test_trials_without_an_end_are_counted_and_never_chosen() -> None:
    advice = advised([ended("pruned"), ended("failed", "loss is NaN"), ended("running"), trial(1.2)])
    assert advice.caveats[-2].startswith("1 trial failed;")
    assert "loss is NaN" in advice.caveats[-2]
    assert advice.caveats[-1] == "1 trial had not ended when this was written."


def test_without_any_end_there_is_no_recommendation() -> None:
    advice = recommend((ended("failed", "loss is NaN"),), 0.01)
    assert isinstance(advice, NoRecommendation)
    assert "None of 1 trial ran to its end" in advice.reason
    assert "loss is NaN" in advice.reason


def test_noise_is_pooled_over_settings_with_repeats() -> None:
    found = summaries([*seeds([1.0, 1.2]), *seeds([2.0, 2.1, 2.2], r=32), trial(9.0, r=64)])
    assert noise_of(found) == pytest.approx(((0.02 + 0.02) / 3) ** 0.5)
    assert noise_of(summaries([trial(1.0)])) is None
