"""A delta has another shape than the weight it is to be added to.

Why it matters: the adapter belongs to another model. Equal names are no proof: families share them over all sizes. How
many rows a head or an embedding has is another question: rules on the vocabulary answer it.

What to do: give the base that the adapter was trained on.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.adapter_tensors import is_expert_parameter
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseCheck, Problem, Rule, Severity
from converter.rules.ends import ENDS


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each well-shaped pair whose product doesn't fit its module. Vectors belong to lora-on-vector."""
    for pair in adapter.pairs:
        wanted = base.shape(pair.module)
        if wanted is None or len(wanted) < 2 or not pair.is_well_shaped:
            continue
        if is_expert_parameter(pair.module) and not _is_straight(adapter):
            continue  # experts-turned-round
        begin = 1 if pair.module in ENDS else 0
        if len(pair.shape) != len(wanted) or pair.shape[begin:] != wanted[begin:]:
            message = f"gives a delta of {list(pair.shape)}, but the weight in {base.label} is {list(wanted)}"
            yield Problem(pair.module, message)


def _is_straight(adapter: Adapter) -> bool:
    from converter.derive.expert_layout import is_straight

    return bool(is_straight(adapter))


RULE = Rule("BM002", "factors-dont-fit", Severity.ERROR, BaseCheck(check))
