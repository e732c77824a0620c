"""Divergences against formulas written out by hand."""

from math import exp, inf, log, nan

import numpy as np
import pytest

from converter.verification import comparison
from converter.verification.comparison import LogitsComparison, Sample, compare_logits, kl_divergence, log_softmax


def logits_of(*rows: tuple[float, ...]) -> np.ndarray:
    return np.log(np.array(rows, np.float32))


UNIFORM, SKEWED = (0.5, 0.5), (0.9, 0.1)


def sample(**changes: np.ndarray | None) -> Sample:
    arrays: dict[str, np.ndarray | None] = {
        "peft": logits_of(UNIFORM, SKEWED),
        "peft_base": logits_of(SKEWED, UNIFORM),
        "deployed": logits_of(UNIFORM, SKEWED),
        "deployed_by_default": logits_of(UNIFORM, SKEWED),
        "base": logits_of(SKEWED, UNIFORM),
    }
    return Sample((1, -1), **{**arrays, **changes})  # type: ignore[arg-type]  # only base may be None


def test_kl_of_two_coins() -> None:
    divergence = kl_divergence(log_softmax(logits_of(SKEWED)), log_softmax(logits_of(UNIFORM)))
    assert divergence[0] == pytest.approx(0.9 * log(0.9 / 0.5) + 0.1 * log(0.1 / 0.5), rel=1e-6)


def test_log_softmax_ignores_a_shift_and_survives_large_logits() -> None:
    logits = np.array([[1000.0, 999.0]], np.float32)
    assert np.exp(log_softmax(logits)).sum() == pytest.approx(1)
    assert log_softmax(logits)[0, 0] == pytest.approx(-log(1 + exp(-1)))


def test_an_exact_deployment() -> None:
    result = compare_logits([sample()])
    assert (result.kl, result.kl_max, result.floor, result.effect_ratio) == (0, 0, 0, 0)
    assert (result.top1, result.max_abs_diff, result.n_tokens) == (1, 0, 2)
    assert result.perplexity_ratio == pytest.approx(1)


def test_a_deployment_without_the_adapter_has_ratio_one() -> None:
    result = compare_logits([sample(deployed=logits_of(SKEWED, UNIFORM))])
    assert result.effect_ratio == pytest.approx(1)


def test_perplexity_counts_the_tokens_that_follow() -> None:
    # After token 0 comes token 1: PEFT gives it 0.5, the deployment 0.1. Nothing follows the last token.
    result = compare_logits([sample(deployed=logits_of(SKEWED, SKEWED))])
    assert result.perplexity_ratio == pytest.approx(0.5 / 0.1, rel=1e-6)


def test_means_are_over_all_positions_of_all_samples() -> None:
    wrong = sample(deployed=logits_of(SKEWED, SKEWED))
    alone, together = compare_logits([wrong]), compare_logits([wrong, sample()])
    assert together.kl == pytest.approx(alone.kl / 2)
    assert together.kl_max == alone.kl_max


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(3)
    names = ("peft", "peft_base", "deployed", "deployed_by_default", "base", "quantized_base")
    arrays = {name: generator.normal(size=(7, 11)).astype(np.float32) for name in names}
    samples = [Sample(tuple(range(7)), **arrays)]
    whole = compare_logits(samples)
    monkeypatch.setattr(comparison, "_BLOCK_VALUES", 22)
    assert compare_logits(samples) == whole


def test_a_vocabulary_trimmed_by_conversion_is_compared_on_what_is_left() -> None:
    longer = np.pad(logits_of(UNIFORM, SKEWED), ((0, 0), (0, 3)))
    result = compare_logits([sample(peft=longer, peft_base=longer[:, ::-1])])
    assert result.kl == 0


def test_without_a_base_gguf_there_is_no_floor() -> None:
    assert compare_logits([sample(base=None)]).floor is None


def test_a_quantised_base_lies_beside_peft_and_the_deployed_file() -> None:
    """The adapter turns one coin of two; the file is right, and the base without it is right of the other."""
    bare = compare_logits([sample(quantized_base=logits_of(SKEWED, UNIFORM))])
    assert bare.quantized_base is not None
    assert (bare.quantized_base.noise, bare.effect_ratio) == (0, 0)
    assert bare.quantized_base.kl == pytest.approx(bare.effect)
    assert bare.quantized_base.kl_of_deployed == pytest.approx(bare.effect)
    assert bare.quantized_base.perplexity_ratio == pytest.approx(0.5 / 0.1, rel=1e-6)
    assert bare.quantized_base.perplexity_ratio_of_deployed == pytest.approx(0.1 / 0.5, rel=1e-6)
    assert (bare.quantized_base.top1, bare.quantized_base.top1_of_deployed) == (1, 1)  # the first of equals


def test_a_file_that_lost_the_adapter_is_its_quantised_base() -> None:
    gone = logits_of((0.8, 0.2), (0.3, 0.7))
    found = compare_logits([sample(deployed=gone, quantized_base=gone)])
    assert found.quantized_base is not None
    assert found.quantized_base.kl_of_deployed == 0
    assert found.quantized_base.kl == pytest.approx(found.kl)
    assert (found.quantized_base.top1, found.quantized_base.top1_of_deployed) == (0.5, 1)
    assert found.quantized_base.perplexity_ratio == pytest.approx(found.perplexity_ratio)
    assert found.quantized_base.perplexity_ratio_of_deployed == pytest.approx(1)


def test_a_quantised_base_that_lacks_tokens_is_compared_on_what_it_has() -> None:
    longer, names = np.pad(logits_of(UNIFORM, SKEWED), ((0, 0), (0, 3))), ("peft", "peft_base", "deployed")
    arrays = dict.fromkeys((*names, "deployed_by_default"), longer)
    found = compare_logits([sample(**arrays, quantized_base=logits_of(UNIFORM, SKEWED))])
    assert found.quantized_base is not None
    assert found.quantized_base.kl == found.quantized_base.kl_of_deployed == 0


def test_a_logit_that_is_no_number_is_not_lost_in_a_maximum() -> None:
    broken = logits_of(UNIFORM, SKEWED)
    broken[1, 0] = nan
    result = compare_logits([sample(deployed=broken)])
    assert np.isnan(result.effect_ratio)
    assert np.isnan(result.max_abs_diff)


def test_no_effect_makes_any_error_infinite() -> None:
    result = LogitsComparison(1, 0.0, 1e-9, 1e-9, 1e-9, 1.0, 0.0, 1.0, None)
    assert result.effect_ratio == inf
