"""The index names a shard outside the adapter's directory.

Why it matters: a loader that follows `..` or an absolute path reads files that are none of the adapter's. It is not
followed here.

What to do: be wary of where the file comes from. Shards lie beside their index, under plain names.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each shard whose name leaves the directory."""
    for fault in adapter.faults:
        if fault.name == "shard-name":
            yield Problem(fault.path.name, f"{fault.message}, wanted a plain file name")


RULE = Rule("SC002", "foreign-shard", Severity.ERROR, AdapterCheck(check))
