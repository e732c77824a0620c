"""A module's rank is higher than the policy allows.

Why it matters: servers reserve room for the largest rank they are told of (vLLM's --max-lora-rank), refuse a larger
one, and get slower with each doubling.

What to do: train with a smaller r (or rank_pattern), or raise limits.rank in the policy.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import Limits, PolicyCheck, Problem, Rule, Severity


def check(adapter: Adapter, _base: BaseModel | None, limits: Limits) -> Iterator[Problem]:
    """Yield each pair whose rank is higher."""
    if limits.rank is None:
        return
    for pair in adapter.pairs:
        if pair.rank > limits.rank:
            yield Problem(pair.module, f"has rank {pair.rank}, the policy allows {limits.rank}")


RULE = Rule("PO001", "rank-over-limit", Severity.ERROR, PolicyCheck(check))
