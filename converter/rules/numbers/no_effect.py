"""Every delta of the adapter is zero.

Why it matters: the model that is served is the base. PEFT starts with one factor at zero, so this adapter was saved
before a step of training reached it, or its parameters were never trained. Where the other factor is zero it was lost,
and below 1e-16 (root mean square) no forward pass shows a delta.

What to do: check that training ran, and that the trained adapter was saved; save under FSDP or ZeRO-3 with the
parameters gathered. Check lora_alpha.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.adapter_keys import Role
from converter.diagnostics import Problem, Rule, Severity, ValuesCheck

_PARTS: Final[frozenset[Role]] = frozenset({"lora_magnitude_vector", "lora_B.bias", "base_layer.bias"})


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield the adapter if it has deltas, all are zero, and nothing else was saved."""
    from converter.values.numbers import is_zero_delta

    factors_only = not adapter.saved_modules and not adapter.token_rows and not _has_parts(adapter)
    if adapter.pairs and factors_only and all(is_zero_delta(pair) for pair in adapter.pairs):
        yield Problem(str(adapter.path), f"all {len(adapter.pairs)} deltas are zero, or too small to show")


def _has_parts(adapter: Adapter) -> bool:
    """Whether magnitudes or biases were trained, which have an effect of their own."""
    return any(tensor.role in _PARTS for tensor in adapter.tensors)


RULE = Rule("NM002", "no-effect", Severity.ERROR, ValuesCheck(check))
