"""A tensor of the adapter is stored as whole numbers, booleans or another type without floating-point values.

Why it matters: its numbers mean nothing without a scale that PEFT doesn't save. Quantised or packed state dicts look
like this.

What to do: save the adapter in float32, float16 or bfloat16.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.adapter_keys import Role
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity
from converter.dtypes import SAFETENSORS_FLOATS, SAFETENSORS_ITEMSIZE

# A key of no known form is unknown-key, and other methods than LoRA keep indices in whole numbers.
_OTHER_ROLES: Final[tuple[Role, ...]] = ("unknown", "tuner", "shared")


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each tensor whose type is known, and is none of numbers."""
    for tensor in adapter.tensors:
        dtype = tensor.tensor.dtype
        if dtype in SAFETENSORS_ITEMSIZE and dtype not in SAFETENSORS_FLOATS and tensor.role not in _OTHER_ROLES:
            yield Problem(tensor.key, f"is stored as {dtype}, wanted one of {', '.join(sorted(SAFETENSORS_FLOATS))}")


RULE = Rule("LO008", "not-floating-point", Severity.ERROR, AdapterCheck(check))
