"""What the adapter adds to a weight, or puts in its place, is so large that a forward pass overflows.

Why it matters: three matrices follow each other between two norms, and their sums are squared, in float32: where the
root mean square of each is 10,000 the logits of a model of usual width are NaN. PEFT's are too. Of trained weights it
is below 1. In a LoRA file, what lora_A gives is rounded to the type of lora_B: F16 ends at 65,504.

What to do: check lora_alpha, r and alpha_pattern first. Else training diverged: take an earlier checkpoint, or train
again with a lower learning rate.
"""

from collections.abc import Iterator
from math import prod
from typing import Final

from converter.derive.adapter import Adapter, LoraPair
from converter.diagnostics import EVERY, LORA, Kind, Problem, Rule, Severity, ValuesCheck

_LARGEST: Final = 1e3  # root mean square; a thousand times what a forward pass of usual width still bears
_LARGEST_NORM_F16: Final = 1e3  # of lora_A, which an input of norm 65 makes too large for F16
_LARGEST_NORM: Final = 1e15


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each pair and each whole tensor beyond what a forward pass bears."""
    from converter.values.numbers import norm

    factors = set()
    for pair in adapter.pairs:
        a, b = norm(pair.a.tensor), norm(pair.b.tensor)
        factors |= {pair.a.key, pair.b.key}
        if pair.is_well_shaped:
            yield from _of_pair(pair, a, b)
    for tensor in adapter.tensors:
        found = norm(tensor.tensor) / max(1, tensor.tensor.n_elements) ** 0.5 if tensor.key not in factors else 0.0
        if found > _LARGEST:
            yield _problem(tensor.key, found, "a number")


def _of_pair(pair: LoraPair, a: float, b: float) -> Iterator[Problem]:
    n_elements = max(1, prod(pair.shape[-2:]))
    # At most, and of factors that are random to each other about the square root of the rank less.
    found = abs(pair.scaling) * a * b / n_elements**0.5
    if found > _LARGEST:
        yield _problem(pair.module, found, "a weight of its delta")
    elif a > (_LARGEST_NORM_F16 if pair.b.tensor.dtype == "F16" else _LARGEST_NORM) or b > _LARGEST_NORM:
        message = (
            f"has the norm {a:.3g} beside a lora_B of {pair.b.tensor.dtype} and {b:.3g}, which overflow in between"
        )
        yield Problem(pair.a.key, message, LORA)


def _problem(where: str, found: float, what: str, blocks: frozenset[Kind] = EVERY) -> Problem:
    return Problem(where, f"{what} is {found:.3g} in the root mean square, wanted {_LARGEST:g} at most", blocks)


RULE = Rule("NM004", "change-too-large", Severity.ERROR, ValuesCheck(check))
