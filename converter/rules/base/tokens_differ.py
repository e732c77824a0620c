"""The tokenizer beside the adapter and the base give a few ids to different tokens, and none of them is in reserve.

Why it matters: either the base is a sister model (a chat model's base, another release), or a converter wrote these
texts in its own way. Text that contains them may become other ids than in training.

What to do: compare the tokens that are named. With --to model the added ones follow the adapter's tokenizer.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.vocabulary import vocabulary_of
from converter.diagnostics import BaseCheck, Problem, Rule, Severity
from converter.rules.base.another_tokenizer import are_many
from converter.rules.texts import listed


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the ids, if they are few."""
    vocabulary = vocabulary_of(adapter, base)
    if vocabulary and vocabulary.differing and not are_many(vocabulary):
        yield Problem("tokenizer", f"differs from {base.label} in the tokens {listed(map(str, vocabulary.differing))}")


RULE = Rule("BM024", "tokens-differ", Severity.WARNING, BaseCheck(check))
