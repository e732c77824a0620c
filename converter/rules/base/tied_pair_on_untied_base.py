"""Head and embedding were trained as one tensor, and the base given has two different ones.

Why it matters: PEFT saves one delta for both (ensure_weight_tying, equal factors) only where the base is tied. An
untied base of the same shapes is another model: the adapter loads on it without a word and is wrong. An untied copy
of the tied base, as --untie makes it, is right.

What to do: give the tied base that the adapter was trained on.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING, HEAD
from converter.diagnostics import BaseValuesCheck, CannotLookError, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the head of a tied pair, if the base's two ends are neither one tensor nor equal."""
    if base.tied or not adapter.is_tied_pair or not _is_one_delta(adapter):
        return
    head, embedding = base.weight(HEAD), base.weight(EMBEDDING)
    if head is None or embedding is None:
        raise CannotLookError(f"{base.label} has no weights to compare head and embedding")
    from converter.values.numbers import relative_difference, rounding

    if head.shape == embedding.shape and relative_difference(head, embedding) > rounding(head) + rounding(embedding):
        message = f"is one delta with embed_tokens, but in {base.label} head and embedding are different tensors"
        yield Problem(HEAD, message)


def _is_one_delta(adapter: Adapter) -> bool:
    from converter.values.numbers import are_transposes

    pairs = {pair.module: pair for pair in adapter.pairs}
    head, embedding = pairs[HEAD], pairs[EMBEDDING]
    return are_transposes(head.a.tensor, embedding.b.tensor) and are_transposes(head.b.tensor, embedding.a.tensor)


RULE = Rule("BM010", "tied-pair-on-untied-base", Severity.ERROR, BaseValuesCheck(check))
