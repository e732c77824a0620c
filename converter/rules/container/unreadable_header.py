"""A weight file has no safetensors header that can be read.

Why it matters: no tensor can be found in it. The file is cut off inside its header, is of another format under this
name, or has a header that safetensors doesn't read or that is larger than any that training writes (docs/limits.md). Of
nine peers tried on a truncated file, some end in a traceback and some call it fine.

What to do: copy or download the file again, and compare its size with the original's.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each weight file whose header can't be read."""
    for fault in adapter.faults:
        if fault.name == "weights":
            yield Problem(fault.path.name, fault.message)


RULE = Rule("ST002", "unreadable-header", Severity.ERROR, AdapterCheck(check))
