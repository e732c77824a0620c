"""A tensor of the adapter holds NaN or infinity.

Why it matters: one such number spreads over every logit. llama.cpp converts and loads the file without a message, and
its logits are not finite.

What to do: take an earlier checkpoint, from before the loss became NaN. Train in bfloat16 or float32 instead of
float16, or with a lower learning rate.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import Problem, Rule, Severity, ValuesCheck


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each tensor with numbers that are not finite."""
    from converter.values.numbers import count_non_finite, is_readable

    for tensor in adapter.tensors:
        count = count_non_finite(tensor.tensor) if is_readable(tensor.tensor) else 0
        if count:
            yield Problem(tensor.key, f"{count} of {tensor.tensor.n_elements} numbers are NaN or infinite")


RULE = Rule("NM001", "non-finite", Severity.ERROR, ValuesCheck(check))
