"""A pattern in adapter_config.json doesn't compile, or can take exponential time.

Why it matters: rank_pattern and alpha_pattern are regexes that every loader runs over every module. One that repeats
what repeats hangs it: `([a-z_.0-9]+)+!` took 1.5 s over 24 characters, and twice that for each one more. One that
doesn't compile leaves the scale of the deltas open.

What to do: write the pattern without nested repetition, or as plain module names.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.patterns import compiles, is_bounded
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each key of a pattern field that is not bounded, and a target_modules that doesn't compile."""
    config = adapter.config
    if config is None:
        return
    for field, keys in (("rank_pattern", config.rank_pattern), ("alpha_pattern", config.alpha_pattern)):
        for key in keys:
            if not is_bounded(key):
                yield Problem(field, f"has the key {key[:80]!r}, which is no regex of bounded time")
    # target_modules is never run here: the tensors say which modules have a delta.
    if isinstance(config.target_modules, str) and not compiles(config.target_modules):
        yield Problem("target_modules", f"is {config.target_modules[:80]!r}, which is no regex")


RULE = Rule("CF007", "unsafe-pattern", Severity.ERROR, AdapterCheck(check))
