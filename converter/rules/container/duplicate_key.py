"""A safetensors header states one key twice.

Why it matters: the format forbids it, and readers disagree on which of the two tensors counts: Python's safetensors
accepts the file and keeps one in silence. What was reviewed need not be what is served.

What to do: save the adapter again with PEFT's save_pretrained; be wary of where the file comes from.
"""

from collections import Counter
from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each key that a header, or several shards between them, state more than once."""
    counts = Counter(entry.name for header in adapter.headers for entry in header.entries)
    for key, count in counts.items():
        if count > 1:
            yield Problem(key, f"stands {count} times in the header, wanted once")


RULE = Rule("ST003", "duplicate-key", Severity.ERROR, AdapterCheck(check))
