"""A delta has another shape than the weight it is to be added to.

Why it matters: the adapter belongs to another model. Equal names are no proof: families share them over all sizes. How
many rows a head or an embedding has is another question: rules on the vocabulary answer it.

What to do: give the base that the adapter was trained on.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter, LoraPair
from converter.derive.adapter_tensors import is_expert_parameter
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseCheck, Problem, Rule, Severity
from converter.rules.ends import ENDS


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each well-shaped pair whose product doesn't fit its module. Vectors belong to lora-on-vector."""
    for pair in _pairs(adapter, base):
        wanted = base.shape(pair.module)
        if wanted is None or len(wanted) < 2 or not pair.is_well_shaped:
            continue
        begin = 1 if pair.module in ENDS else 0
        if len(pair.shape) != len(wanted) or pair.shape[begin:] != wanted[begin:]:
            message = f"gives a delta of {list(pair.shape)}, but the weight in {base.label} is {list(wanted)}"
            yield Problem(pair.module, message)


def _pairs(adapter: Adapter, base: BaseModel) -> Iterator[LoraPair]:
    """The pairs as they lie on the base, but those that experts-turned-round is about."""
    if not any(is_expert_parameter(pair.module) for pair in adapter.pairs):
        yield from adapter.pairs
        return
    from converter.derive.expert_layout import is_kept_turned, is_turned, pairs_over

    turned = is_turned(adapter, base)
    is_known = turned is False or (turned and is_kept_turned(adapter, base))
    yield from (pair for pair in pairs_over(adapter, base) if is_known or not is_expert_parameter(pair.module))


RULE = Rule("BM002", "factors-dont-fit", Severity.ERROR, BaseCheck(check))
