"""A weight file ends before the tensors that its header states.

Why it matters: the download or copy stopped early. The last tensors are missing, in whole or in part.

What to do: copy or download the file again, and compare its size with the original's.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each file that is shorter than its header says."""
    for header in adapter.headers:
        ends = [header.data_offset + entry.end for entry in header.entries]
        n_missing = sum(end > header.nbytes for end in ends)
        if n_missing:
            size = f"has {header.nbytes} bytes, its header states {max(ends)}"
            yield Problem(header.path.name, f"{size}: {n_missing} of {len(ends)} tensors are incomplete")


RULE = Rule("ST011", "truncated-file", Severity.ERROR, AdapterCheck(check))
