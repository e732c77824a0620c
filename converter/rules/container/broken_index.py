"""The index of a sharded adapter can't be read, or disagrees with its shards.

Why it matters: with a shard missing, or a key in another shard than the index says, a loader serves a part of the
adapter or none of it.

What to do: copy or download all shards and the index again, or save the adapter as one file.
"""

from collections.abc import Iterator, Mapping

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity
from converter.read.checkpoint import INDEX_NAME


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield an index that can't be read, shards that are missing, keys that are not where the index has them."""
    for fault in adapter.faults:
        if fault.name == "index":
            yield Problem(INDEX_NAME, fault.message)
        elif fault.name == "weights-missing" and adapter.index is not None:
            yield Problem(fault.path.name, f"{fault.message}, but {INDEX_NAME} names it")
    if adapter.index is not None:
        yield from _misplaced(adapter, adapter.index)


def _misplaced(adapter: Adapter, index: Mapping[str, str]) -> Iterator[Problem]:
    found = {entry.name: header.path.name for header in adapter.headers for entry in header.entries}
    read = {header.path.name for header in adapter.headers}
    for key, shard in index.items():
        if shard in read and found.get(key) != shard:
            yield Problem(key, f"is in {found.get(key, 'no shard')}, but the index has it in {shard}")
    for key, shard in found.items():
        if key not in index:
            yield Problem(key, f"is in {shard}, but not in the index")


RULE = Rule("ST008", "broken-index", Severity.ERROR, AdapterCheck(check))
