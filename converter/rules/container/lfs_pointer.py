"""A weight file is a Git LFS pointer: three lines of text that stand for the weights.

Why it matters: the weights were never downloaded. The file has the right name and some 130 bytes.

What to do: run `git lfs install` and `git lfs pull` in the repository, or download the file from the hub's page.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each pointer that stands in for weights."""
    for fault in adapter.faults:
        if fault.name == "lfs-pointer":
            yield Problem(fault.path.name, fault.message)


RULE = Rule("ST007", "lfs-pointer", Severity.ERROR, AdapterCheck(check))
