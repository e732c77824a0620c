"""DoRA's magnitudes have nothing to do with the row norms of the base.

Why it matters: training starts them at the norms of the base's rows and moves them by a percent or so: on real SmolLM2
they still correlate to 0.999 and more after 40 steps at 1e-3. With the norms of other weights of the same shape they
correlate to 0.16. DoRA gives each row the norm that its magnitude states, so that on another base no row keeps its own.

What to do: give the base that the adapter was trained on. Siblings (a base and its instruct version) have almost the
same norms and are not told apart by them.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseValuesCheck, CannotLookError, Problem, Rule, Severity

_LEAST: Final = 0.2


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the adapter if its magnitudes follow the base's norms no more than another model's would."""
    from converter.values.magnitudes import agreement

    pairs = [pair for pair in adapter.pairs if pair.magnitude and not pair.is_embedding]
    if not pairs or base.architecture is None:
        return
    if base.quantization or not base.tensors:
        raise CannotLookError(f"{base.label} has no weights to compare magnitudes with")
    found = agreement(pairs, base)
    if found is not None and found < _LEAST:
        message = f"correlate to {found:.2f} with the row norms of {base.label}, wanted {_LEAST} and more"
        yield Problem("lora_magnitude_vector", message)


RULE = Rule("BM008", "magnitudes-of-another-base", Severity.ERROR, BaseValuesCheck(check))
