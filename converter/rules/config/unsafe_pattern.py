"""A pattern in adapter_config.json is no regex, is of a kind that is not read, or takes too long.

Why it matters: PEFT runs rank_pattern, alpha_pattern, target_modules, exclude_modules and modules_to_save as regexes
over every module. They say how a delta is scaled and which ones are loaded, and one that can be tried in too many ways
hangs every loader: `([a-z_.0-9]+)+!` took 1.5 s over 24 characters, and twice that for each one more.

What to do: write the pattern as plain module names, or without repetition in repetition.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each pattern that can't be asked about all modules of the file."""
    if adapter.patterns is None:
        return
    adapter.patterns.ask_all(tensor.path for tensor in adapter.tensors)
    for (field, pattern), why in adapter.patterns.unread.items():
        yield Problem(field, f"{pattern[:80]!r} {why}" if pattern else f"all together: {why}")


RULE = Rule("CF007", "unsafe-pattern", Severity.ERROR, AdapterCheck(check))
