"""A tensor that PEFT saves twice is not the same both times.

Why it matters: of a module of modules_to_save PEFT writes two copies when the vocabulary was resized, and of a tied
head's token rows the embedding's once more. They are one parameter, so the copies must agree bit by bit; where they
don't, the file was put together by hand, and which one was trained can't be known.

What to do: save the adapter again with PEFT's save_pretrained.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import Problem, Rule, Severity, ValuesCheck


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each copy that is not its original."""
    from converter.values.numbers import are_equal

    by_key = {tensor.key: tensor for tensor in adapter.tensors}
    for tensor in adapter.tensors:
        if tensor.copy_of and not are_equal(tensor.tensor, by_key[tensor.copy_of].tensor):
            yield Problem(tensor.key, f"differs from {tensor.copy_of}, which it repeats")


RULE = Rule("LO017", "copy-differs", Severity.ERROR, ValuesCheck(check))
