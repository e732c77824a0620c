"""adapter_config.json is not a JSON object.

Why it matters: the scale of every delta stands there and nowhere else.

What to do: mend the file, or copy it from where the adapter was saved.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield a config that can't be read."""
    for fault in adapter.faults:
        if fault.name == "config":
            yield Problem(fault.path.name, fault.message)


RULE = Rule("CF002", "unreadable-config", Severity.ERROR, AdapterCheck(check))
