"""The adapter's directory holds no weights, or a link that leads nowhere.

Why it matters: there is nothing to deploy. Interrupted downloads, `git clone` without Git LFS and copies that lose
the targets of symlinks leave such directories; tools that only look for adapter_config.json take them for adapters.

What to do: copy or download adapter_model.safetensors again, or point to the directory that holds it. Give a file that
was renamed its name back. Where model.safetensors is there instead, it is a whole model: the adapter is merged already.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield the weight file that is not there. Shards that an index names belong to broken-index."""
    for fault in adapter.faults:
        if fault.name == "weights-missing" and adapter.index is None:
            yield Problem(fault.path.name, fault.message)


RULE = Rule("ST001", "weights-missing", Severity.ERROR, AdapterCheck(check))
