"""What a proven deployment may differ by, and why. Data; measured on real adapters, r 16, 40 steps.

| threshold | for | measured, correct conversions |
|---|---|---|
| 1e-4 | touched tensors in F32 or F16 | 5e-12 to 2.3e-5: little but the noise of two programs |
| 1e-3 | a LoRA over a BF16 base | 1e-5 to 6e-4: ggml rounds activations to the weights' type |
| 5e-3 | touched tensors in BF16 | 3e-5 to 3.7e-3: three bits of mantissa less than F16 |
| 5e-2 | Q8_0, quantised bases | 4e-4 to 5.4e-3 on texts like the adapter's own; 9e-3 to 2.6e-2 on other texts |

Wrong ones are far off: rsLoRA ignored 0.18, a head dropped 0.88. One module of many dropped is not always: the
tensor proof finds it. Beside quantised weights ggml rounds activations to 8 bits too, and on texts that the adapter
barely moves that error is no longer small beside its effect: there the ratio only tells the grossly wrong, and the
tensor proof, which knows each type's rounding, carries the verdict. A deployment that is as close to PEFT as llama.cpp
comes without any adapter (the noise floor) passes whatever the threshold.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from converter.verification.comparison import LogitsComparison

_EXACT_TYPES: Final = frozenset({"F32", "F16"})
_PLAIN_TYPES: Final = frozenset({"F32", "F16", "BF16"})

# The deployment's own noise and the floor's are drawn alike, not equal.
_FLOORS: Final = 2.0
# The adapter has to stand out of the floor by this, or the ratio is the floor's and tells nothing.
_EFFECT_PER_FLOOR: Final = 1000.0


@dataclass(frozen=True, slots=True)
class Threshold:
    """The largest effect ratio that passes, and the reason that is shown beside it."""

    ratio: float
    reason: str

    @property
    def effect_per_floor(self) -> float:
        """How many times the noise floor the adapter's effect must be, for the floor to lie below the threshold."""
        return min(_EFFECT_PER_FLOOR, 1 / self.ratio)

    def allows(self, comparison: LogitsComparison) -> bool:
        """Whether the effect ratio passes; NaN does not."""
        return comparison.effect_ratio <= self.ratio or self.is_at_floor(comparison)

    def is_at_floor(self, comparison: LogitsComparison) -> bool:
        """Whether the deployment is as close to PEFT as the bare base is."""
        return comparison.floor is not None and comparison.kl <= _FLOORS * comparison.floor

    def has_effect(self, comparison: LogitsComparison) -> bool:
        """Whether the adapter does enough for the ratio to mean something."""
        return comparison.effect > 0 and comparison.effect >= self.effect_per_floor * (comparison.floor or 0.0)


EXACT: Final = Threshold(1e-4, "F32 or F16 tensors")
BF16_BASE: Final = Threshold(1e-3, "a LoRA over BF16 tensors")
COARSE: Final = Threshold(5e-3, "BF16 tensors")
QUANTIZED: Final = Threshold(5e-2, "quantised tensors: activations are rounded to 8 bits too")


def model_threshold(touched: Collection[str], untouched: Collection[str]) -> Threshold:
    """For a merged model, by the types of the tensors that the adapter touches and of the others."""
    if not _PLAIN_TYPES.issuperset({*touched, *untouched}):
        return QUANTIZED
    return EXACT if _EXACT_TYPES.issuperset(touched) else COARSE


def lora_threshold(base: Collection[str]) -> Threshold:
    """For a LoRA, by the types of the base's tensors."""
    if not _PLAIN_TYPES.issuperset(base):
        return QUANTIZED
    return EXACT if _EXACT_TYPES.issuperset(base) else BF16_BASE
