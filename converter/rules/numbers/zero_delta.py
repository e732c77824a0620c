"""The delta of a module is zero, while others are not.

Why it matters: the adapter does nothing there. That is harmless, and odd: PEFT starts with one factor at zero, so no
step of training reached this module.

What to do: check that the module was meant to be trained (layers_to_transform, frozen parameters, unused experts).
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import Problem, Rule, Severity, ValuesCheck


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each pair whose product is zero, unless all are."""
    from converter.values.numbers import is_zero_delta

    zero = [pair for pair in adapter.pairs if is_zero_delta(pair)]
    for pair in zero if len(zero) < len(adapter.pairs) or adapter.saved_modules else ():
        yield Problem(pair.module, "has a delta of zero, or one too small to show")


RULE = Rule("NM003", "zero-delta", Severity.WARNING, ValuesCheck(check))
