"""adapter_config.json states a field twice.

Why it matters: JSON readers keep the last one in silence, others the first. What a reviewer reads need not be what is
applied.

What to do: delete the wrong one.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each field that stands twice in one object."""
    for field in adapter.config.duplicates if adapter.config else ():
        yield Problem(field, "stands more than once in the file")


RULE = Rule("CF008", "duplicate-field", Severity.ERROR, AdapterCheck(check))
