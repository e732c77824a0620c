"""The adapter has no adapter_config.json.

Why it matters: the scale of every delta (lora_alpha, r, use_rslora, patterns) stands there and nowhere else. A guess
that is wrong by the square root of r was worth a KL of 0.15 to 6.5 on tiny models.

What to do: copy adapter_config.json from where the adapter was saved; PEFT's save_pretrained writes it.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield the config that is not there."""
    for fault in adapter.faults:
        if fault.name == "config-missing":
            yield Problem(fault.path.name, fault.message)


RULE = Rule("CF001", "config-missing", Severity.ERROR, AdapterCheck(check))
