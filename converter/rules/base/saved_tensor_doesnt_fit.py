"""A parameter that is saved whole has another shape than the base's.

Why it matters: it is of another model. How many rows a head or an embedding has is another question: rules on the
vocabulary answer it.

What to do: give the base that the adapter was trained on.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.adapter_tensors import AdapterTensor
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseCheck, Problem, Rule, Severity
from converter.rules.ends import ENDS


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each whole parameter that doesn't match the base's, and token rows of another width."""
    rows = tuple(rows.tensor for rows in adapter.token_rows)
    for tensor in (*adapter.saved_modules, *adapter.base_layers, *rows):
        wanted = _wanted(tensor, base)
        if wanted is not None and not _fits(tensor, wanted):
            found = list(tensor.tensor.shape)
            yield Problem(tensor.key, f"is {found}, but {tensor.module} in {base.label} is {list(wanted)}")


def _wanted(tensor: AdapterTensor, base: BaseModel) -> tuple[int, ...] | None:
    shape, place = base.shape(tensor.module), base.place(tensor.module)
    if shape is None or place is None:
        return None
    if tensor.role.endswith("bias"):
        return shape[:1]
    return shape[::-1] if place.transposed else shape


def _fits(tensor: AdapterTensor, wanted: tuple[int, ...]) -> bool:
    counts_tokens = tensor.module in ENDS and not tensor.role.endswith("bias")
    begin = 1 if counts_tokens else 0
    found = tensor.tensor.shape
    return len(found) == len(wanted) and found[begin:] == wanted[begin:]


RULE = Rule("BM005", "saved-tensor-doesnt-fit", Severity.ERROR, BaseCheck(check))
