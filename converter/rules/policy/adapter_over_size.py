"""The adapter's weight files are larger than the policy allows.

Why it matters: what holds a saved embedding or head is hundreds of megabytes, each time it is downloaded or swapped in.

What to do: train without modules_to_save, with a smaller rank or on fewer modules, or raise limits.size in the policy.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import Limits, PolicyCheck, Problem, Rule, Severity


def check(adapter: Adapter, _base: BaseModel | None, limits: Limits) -> Iterator[Problem]:
    """Yield the size, if it is larger."""
    nbytes = sum(header.nbytes for header in adapter.headers)
    if limits.nbytes is not None and nbytes > limits.nbytes:
        yield Problem("weights", f"take {nbytes:,} bytes, the policy allows {limits.nbytes:,}")


RULE = Rule("PO002", "adapter-over-size", Severity.ERROR, PolicyCheck(check))
