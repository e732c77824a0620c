"""The adapter brings its own base layer of the head or the embedding, and it is not the base's.

Why it matters: PEFT saves the whole tensor that a delta was trained on beside it (save_embedding_layers). A LoRA file
adds the delta to the base's tensor instead, so the result is neither. Loaded onto a tied base, it overwrites the
embedding.

What to do: with --to model (--untie on a tied base) the saved layer becomes that end's own base. For --to lora give
the base that the adapter was trained on.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.adapter_tensors import AdapterTensor
from converter.derive.base_model import BaseModel
from converter.diagnostics import LORA, BaseValuesCheck, CannotLookError, Problem, Rule, Severity
from converter.rules.ends import ENDS


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each base layer whose values the base's own tensor, and its rounding, don't explain."""
    weights = (tensor for tensor in adapter.base_layers if tensor.role == "base_layer.weight")
    for tensor in weights:
        if tensor.module in ENDS and tensor.tensor.shape == base.shape(tensor.module):
            yield from _compared(tensor, base)


def _compared(tensor: AdapterTensor, base: BaseModel) -> Iterator[Problem]:
    from converter.values.numbers import relative_difference, rounding

    stored = base.weight(tensor.module)
    if stored is None:
        raise CannotLookError(f"{base.label} has no weights to compare a base layer with")
    difference, explained = relative_difference(tensor.tensor, stored), rounding(tensor.tensor) + rounding(stored)
    if difference > explained:
        found = f"differs from the base's {tensor.module} by {difference:.2g} of its norm"
        message = f"{found}, storage as {stored.dtype} explains {explained:.1g}; --to model takes it as its own base"
        yield Problem(tensor.key, message, LORA)


RULE = Rule("HD008", "foreign-base-layer", Severity.ERROR, BaseValuesCheck(check))
