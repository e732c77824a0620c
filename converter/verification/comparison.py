"""Logits against logits: how far the deployed model is from PEFT, measured against how far the adapter moved the base.

The effect ratio KL(PEFT || deployed) / KL(PEFT || base) is the verdict's figure: 0 where the deployment is exact, 1
where it does nothing. Top-1 agreement is shown, not judged: it often stays 1.0 on wrong conversions.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import exp
from typing import Final

import numpy as np

# Values in float64 at a time: 8 positions of Gemma's 262,144 tokens, 16 MB for each array.
_BLOCK_VALUES: Final = 1 << 21


@dataclass(frozen=True, slots=True)
class Sample:
    """Logits at some positions of a token sequence, each array float32 (n_positions, n_vocab).

    ``following`` is the token behind each position, -1 behind the last. ``base`` and ``quantized_base`` are
    llama.cpp's, None where there is none or where it lacks a token of the sequence.
    """

    following: tuple[int, ...]
    peft: np.ndarray
    peft_base: np.ndarray
    deployed: np.ndarray
    deployed_by_default: np.ndarray
    base: np.ndarray | None
    quantized_base: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class QuantizedBase:
    """What llama.cpp makes of the same texts with a quantised base and no adapter; means as in LogitsComparison.

    What quantising costs is in both files; what is between them is the adapter.
    """

    noise: float  # KL(PEFT's base || quantised base): what quantising alone costs
    kl: float  # KL(PEFT || quantised base)
    top1: float
    perplexity_ratio: float  # quantised base / PEFT
    kl_of_deployed: float  # KL(deployed || quantised base): what the adapter does in the quantised model
    top1_of_deployed: float
    perplexity_ratio_of_deployed: float  # deployed / quantised base


@dataclass(frozen=True, slots=True)
class LogitsComparison:
    """KL divergences in nats per token, means over all positions of all sequences."""

    n_tokens: int
    effect: float  # KL(PEFT || PEFT's base): what the adapter does
    kl: float  # KL(PEFT || deployed)
    kl_max: float
    kl_by_default: float  # the same with llama.cpp's default settings
    top1: float
    max_abs_diff: float
    perplexity_ratio: float  # deployed / PEFT
    floor: float | None  # KL(PEFT's base || llama.cpp's base): two programs on one model
    quantized_base: QuantizedBase | None = None

    @property
    def effect_ratio(self) -> float:
        """The share of the adapter's effect that the deployment gets wrong; infinite where there is no effect."""
        return ratio_of(self.kl, self.effect)

    @property
    def effect_ratio_by_default(self) -> float:
        """The effect ratio with llama.cpp's default settings."""
        return ratio_of(self.kl_by_default, self.effect)


def compare_logits(samples: Iterable[Sample]) -> LogitsComparison:
    """Compare sample by sample; no more than one is held. Vocabularies are compared over their common tokens."""
    with np.errstate(invalid="ignore"):  # of infinite logits; the result is NaN and fails
        parts = [part for sample in samples for part in _compare_sample(sample)]
    names = dict.fromkeys(name for part in parts for name in part)
    rows = {name: np.concatenate([part[name] for part in parts if name in part]) for name in names}
    return LogitsComparison(
        n_tokens=len(rows["kl"]),
        effect=float(rows["effect"].mean()),
        kl=float(rows["kl"].mean()),
        kl_max=float(rows["kl"].max()),
        kl_by_default=float(rows["kl_by_default"].mean()),
        top1=float(rows["top1"].mean()),
        max_abs_diff=float(rows["max_abs_diff"].max()),
        perplexity_ratio=_exp_mean(rows["surprise_deployed"] - rows["surprise_peft"]),
        floor=float(rows["floor"].mean()) if "floor" in rows else None,
        quantized_base=_quantized_base(rows) if "quantized_base.kl" in rows else None,
    )


def _quantized_base(rows: dict[str, np.ndarray]) -> QuantizedBase:
    of = {name.removeprefix("quantized_base."): values for name, values in rows.items()}
    return QuantizedBase(
        **{name: float(of[name].mean()) for name in ("noise", "kl", "top1", "kl_of_deployed", "top1_of_deployed")},
        perplexity_ratio=_exp_mean(of["surprise_more"]),
        perplexity_ratio_of_deployed=_exp_mean(of["surprise_less"]),
    )


def _compare_sample(sample: Sample) -> Iterator[dict[str, np.ndarray]]:
    n_vocab, following = min(sample.peft.shape[1], sample.deployed.shape[1]), np.array(sample.following)
    step = max(1, _BLOCK_VALUES // n_vocab)
    for begin in range(0, len(following), step):
        rows = slice(begin, begin + step)
        yield _compare_rows(sample, rows, n_vocab, following[rows])


def _compare_rows(sample: Sample, rows: slice, n_vocab: int, following: np.ndarray) -> dict[str, np.ndarray]:
    peft, deployed = sample.peft[rows, :n_vocab], sample.deployed[rows, :n_vocab]
    log_peft, log_deployed = log_softmax(peft), log_softmax(deployed)
    log_base = log_softmax(sample.peft_base[rows, :n_vocab])
    result = {
        "effect": kl_divergence(log_peft, log_base),
        "kl": kl_divergence(log_peft, log_deployed),
        "kl_by_default": kl_divergence(log_peft, log_softmax(sample.deployed_by_default[rows, :n_vocab])),
        "top1": (peft.argmax(axis=1) == deployed.argmax(axis=1)).astype(np.float64),
        "max_abs_diff": np.abs(peft.astype(np.float64) - deployed).max(axis=1),
        "surprise_peft": _surprise(log_peft, following),
        "surprise_deployed": _surprise(log_deployed, following),
    }
    if sample.base is not None:
        n_vocab = min(n_vocab, sample.base.shape[1])  # a base may lack new tokens
        log_base = log_softmax(sample.peft_base[rows, :n_vocab])
        result["floor"] = kl_divergence(log_base, log_softmax(sample.base[rows, :n_vocab]))
    if sample.quantized_base is not None:
        quantized = sample.quantized_base[rows]
        found = _beside(peft, sample.peft_base[rows], deployed, quantized, following)
        result.update({f"quantized_base.{name}": values for name, values in found.items()})
    return result


def _beside(
    peft: np.ndarray, peft_base: np.ndarray, deployed: np.ndarray, quantized: np.ndarray, following: np.ndarray
) -> dict[str, np.ndarray]:
    n_vocab = min(peft.shape[1], quantized.shape[1])  # a base may lack new tokens
    logits = [each[:, :n_vocab] for each in (peft, peft_base, deployed, quantized)]
    log_peft, log_base, log_deployed, log_quantized = map(log_softmax, logits)
    best_peft, _, best_deployed, best_quantized = (each.argmax(axis=1) for each in logits)
    surprise = _surprise(log_quantized, following)
    return {
        "noise": kl_divergence(log_base, log_quantized),
        "kl": kl_divergence(log_peft, log_quantized),
        "top1": (best_peft == best_quantized).astype(np.float64),
        "kl_of_deployed": kl_divergence(log_deployed, log_quantized),
        "top1_of_deployed": (best_deployed == best_quantized).astype(np.float64),
        "surprise_more": surprise - _surprise(log_peft, following),
        "surprise_less": _surprise(log_deployed, following) - surprise,
    }


def ratio_of(kl: float, effect: float) -> float:
    """A divergence in effects of the adapter; infinite where it has none."""
    return kl / effect if effect > 0 else float("inf")


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log probabilities of each row, in float64 (n_rows, n_vocab)."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def kl_divergence(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    """KL(P || Q) of each row of (n_rows, n_vocab), in nats: (n_rows,)."""
    result: np.ndarray = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    return result


def _surprise(log_probabilities: np.ndarray, following: np.ndarray) -> np.ndarray:
    # The last token of a sequence has none after it, and a trimmed vocabulary may lack one.
    (known,) = np.nonzero((following >= 0) & (following < log_probabilities.shape[1]))
    surprises: np.ndarray = -log_probabilities[known, following[known]]
    return surprises


def _exp_mean(surprises: np.ndarray) -> float:
    # Sequences of one token have nothing to be surprised by; beyond 700, exp is infinite.
    return exp(min(float(surprises.mean()), 700.0)) if surprises.size else 1.0
