"""A delta has another shape than the weight it is to be added to.

Why it matters: the adapter belongs to another model, or to one with another vocabulary. Equal names are no proof:
families share them over all sizes.

What to do: give the base that the adapter was trained on. If the vocabulary was extended in training, the base needs
the same rows.
"""

from collections.abc import Iterator

from converter.diagnostics import BaseCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter
from converter.read.base_model import BaseModel


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each well-shaped pair whose product doesn't fit its module. Vectors belong to lora-on-vector."""
    for pair in adapter.pairs:
        wanted = None if base.quantization else base.shape(pair.module)
        if wanted and len(wanted) == 2 and pair.is_well_shaped and pair.shape != wanted:
            message = f"gives a delta of {list(pair.shape)}, but the weight in {base.label} is {list(wanted)}"
            yield Problem(pair.module, message)


RULE = Rule("BM002", "factors-dont-fit", Severity.ERROR, BaseCheck(check))
