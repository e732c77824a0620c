from math import nan

import pytest

from converter.verification.comparison import LogitsComparison
from converter.verification.thresholds import (
    BF16_BASE,
    COARSE,
    EXACT,
    QUANTIZED,
    Threshold,
    lora_threshold,
    model_threshold,
)


def comparison(*, kl: float, effect: float = 1.0, floor: float | None = None) -> LogitsComparison:
    return LogitsComparison(100, effect, kl, kl, kl, 1.0, 0.0, 1.0, floor)


@pytest.mark.parametrize(
    ("touched", "untouched", "threshold"),
    [
        ({"F32"}, {"F32"}, EXACT),
        ({"F16"}, {"BF16", "F32"}, EXACT),
        ({"F16", "BF16"}, {"F32"}, COARSE),
        ({"Q8_0"}, {"F32"}, QUANTIZED),
        ({"F16"}, {"Q4_K", "F32"}, QUANTIZED),
    ],
)
def test_a_merged_model_is_judged_by_its_types(touched: set[str], untouched: set[str], threshold: Threshold) -> None:
    assert model_threshold(touched, untouched) is threshold


@pytest.mark.parametrize(
    ("base", "threshold"),
    [({"F32", "F16"}, EXACT), ({"F32", "BF16"}, BF16_BASE), ({"F32", "BF16", "Q8_0"}, QUANTIZED)],
)
def test_a_lora_is_judged_by_its_base(base: set[str], threshold: Threshold) -> None:
    assert lora_threshold(base) is threshold


def test_the_ratio_decides() -> None:
    assert EXACT.allows(comparison(kl=1e-4))
    assert not EXACT.allows(comparison(kl=1.01e-4))


def test_as_close_as_the_bare_base_is_close_enough() -> None:
    assert EXACT.allows(comparison(kl=1e-3, floor=6e-4))
    assert not EXACT.allows(comparison(kl=1e-3, floor=4e-4))


def test_no_number_never_passes() -> None:
    broken = comparison(kl=nan, floor=1.0)
    assert not EXACT.allows(broken)
    assert not EXACT.has_effect(comparison(kl=0.0, effect=nan))


def test_an_effect_must_stand_out_of_the_floor() -> None:
    assert EXACT.has_effect(comparison(kl=0, effect=1.0, floor=1e-3))
    assert not EXACT.has_effect(comparison(kl=0, effect=0.9, floor=1e-3))
    assert not EXACT.has_effect(comparison(kl=0, effect=0.0))


def test_a_coarse_threshold_needs_no_more_than_a_floor_below_it() -> None:
    assert COARSE.has_effect(comparison(kl=0, effect=1.0, floor=5e-3))
    assert not COARSE.has_effect(comparison(kl=0, effect=1.0, floor=5.1e-3))
