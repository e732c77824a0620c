"""The config says that head and embedding share one delta (ensure_weight_tying), but the saved factors differ.

Why it matters: PEFT saves a tied pair's factors bit for bit alike, one pair transposed to the other. Where they
differ the file was changed, and which of the two was trained can't be known.

What to do: save the adapter again from the training run. If the two ends were trained apart, set ensure_weight_tying
to false and use --untie.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING, HEAD
from converter.diagnostics import BaseValuesCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each factor of the head that is not the embedding's partner factor, transposed."""
    from converter.values.numbers import are_transposes

    if not base.tied or not adapter.is_tied_pair:
        return
    pairs = {pair.module: pair for pair in adapter.pairs}
    head, embedding = pairs[HEAD], pairs[EMBEDDING]
    for ours, theirs in ((head.a, embedding.b), (head.b, embedding.a)):
        if not are_transposes(ours.tensor, theirs.tensor):
            yield Problem(ours.key, f"is not the transpose of {theirs.key}")


RULE = Rule("HD006", "tied-pair-differs", Severity.ERROR, BaseValuesCheck(check))
