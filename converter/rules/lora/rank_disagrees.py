"""A factor's rank is not the one in adapter_config.json.

Why it matters: the scale is alpha / r, and file and config name two values of r. PEFT can't load such an adapter
(size mismatch); convert_lora_to_gguf.py doesn't look.

What to do: put the config beside the weights it was saved with, or set r and rank_pattern to the factors' ranks if
you know that alpha is right.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each pair whose rank is not r, or rank_pattern's value for its module."""
    if adapter.patterns is None:
        return
    for pair in adapter.pairs:
        wanted = adapter.patterns.rank(pair.a.path)
        if pair.is_well_shaped and pair.a.tensor.shape[0] != wanted * pair.n_experts:
            of_experts = f" for each of {pair.n_experts} experts" if pair.n_experts > 1 else ""
            yield Problem(pair.a.key, f"has rank {pair.a.tensor.shape[0]}, the config says {wanted}{of_experts}")


RULE = Rule("LO005", "rank-disagrees", Severity.ERROR, AdapterCheck(check))
