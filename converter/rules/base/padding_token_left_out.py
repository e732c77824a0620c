"""The adapter's tokenizer adds a padding token that the base doesn't have, in a row that the base has.

Why it matters: it doesn't, as a rule. Padding fills up batches of training, stands in no prompt, and nothing of it is
trained: a LoRA file is served as well without it. A program that puts it into prompts by its text would find several
other tokens there.

What to do: nothing; or let a model of its own know the token: `--to model`.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.vocabulary import is_padding_alone, vocabulary_of
from converter.diagnostics import BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the padding token, if it is all that is new."""
    vocabulary = vocabulary_of(adapter, base)
    if vocabulary and is_padding_alone(adapter, vocabulary):
        (token,) = vocabulary.new_tokens
        yield Problem(
            "tokenizer", f"pads with {token.text!r} ({token.id}), which {base.label} lacks: a LoRA file goes without it"
        )


RULE = Rule("BM029", "padding-token-left-out", Severity.WARNING, BaseCheck(check))
