"""The tokenizer beside the adapter and the base give many ids to different tokens.

Why it matters: the adapter was trained on another base. Rows of the same number in the same shape mean other words, and
llama.cpp would turn text into ids that the adapter has never seen.

What to do: give the base that the adapter was trained on, or put the right tokenizer beside the adapter.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.vocabulary import Vocabulary, vocabulary_of
from converter.diagnostics import BaseCheck, Problem, Rule, Severity


def are_many(vocabulary: Vocabulary) -> bool:
    """Whether the tokens that differ are too many for a converter's spelling of spaces and bytes, or a sister model."""
    return len(vocabulary.differing) > max(3, vocabulary.n_shared // 100)


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield how many differ, if they are many."""
    vocabulary = vocabulary_of(adapter, base)
    if vocabulary and are_many(vocabulary):
        n, n_shared = len(vocabulary.differing), vocabulary.n_shared
        yield Problem("tokenizer", f"differs from {base.label} in {n} of {n_shared} tokens")


RULE = Rule("BM023", "another-tokenizer", Severity.ERROR, BaseCheck(check))
