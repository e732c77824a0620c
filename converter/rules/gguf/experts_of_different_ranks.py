"""The experts of one layer have LoRAs of different ranks.

Why it matters: llama.cpp keeps a layer's experts in one tensor, and so their factors, with one rank for all.

What to do: merge it with `adapter-to-gguf ADAPTER --base BASE --to model -o model.gguf`, or give all experts one rank
(rank_pattern).
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import LORA, BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each GGUF tensor whose experts' ranks differ."""
    ranks: dict[str, set[int]] = {}
    for pair in adapter.pairs:
        for place in base.places(pair.module):
            if place.expert is not None:
                ranks.setdefault(place.tensor, set()).add(pair.rank)
    for tensor, found in ranks.items():
        if len(found) > 1:
            yield Problem(tensor, f"has experts of the ranks {sorted(found)}, wanted one rank", LORA)


RULE = Rule("GG006", "experts-of-different-ranks", Severity.ERROR, BaseCheck(check), gguf=True)
