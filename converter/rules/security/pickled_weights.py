"""The weights are a pickle (adapter_model.bin).

Why it matters: loading a pickle can run any code, and torch's weights_only=True was broken twice (CVE-2025-32434,
CVE-2026-24747). It is not opened here.

What to do: load the adapter in a sandbox you trust, and save it with PEFT's save_pretrained, which writes
safetensors.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield a pickle that has no safetensors file beside it."""
    for fault in adapter.faults:
        if fault.name == "pickle":
            yield Problem(fault.path.name, fault.message)


RULE = Rule("SC001", "pickled-weights", Severity.ERROR, AdapterCheck(check))
