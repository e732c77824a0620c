"""Head and embedding are saved as one tensor of a tied base, and their numbers differ.

Why it matters: PEFT saves both from the one that they share (ensure_weight_tying, or the ends of a resized model), so
the two must agree bit by bit. They don't: the file was put together by hand, or the model was not tied after all.

What to do: part the two with `adapter-to-gguf ADAPTER --base BASE --untie -o model.gguf` if both were meant to be
saved as they are, or save the adapter again from the training run.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseValuesCheck, Problem, Rule, Severity
from converter.rules.ends import ENDS


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the head of a saved pair that is not the embedding."""
    from converter.values.numbers import are_equal

    ends = {tensor.module: tensor for tensor in adapter.saved_modules if tensor.role == "weight"}
    if not base.tied or not adapter.is_saved_pair or not all(end in ends for end in ENDS):
        return
    embedding, head = (ends[end] for end in ENDS)
    if not are_equal(embedding.tensor, head.tensor):
        yield Problem(head.key, f"differs from {embedding.key}", frozenset({"model"}))


RULE = Rule("HD014", "saved-pair-differs", Severity.ERROR, BaseValuesCheck(check), gguf=True)
