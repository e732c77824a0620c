"""The tokenizer beside the adapter has tokens that neither the base nor the adapter has a row for.

Why it matters: harmless where the model never had them either (Gemma 3's <image_soft_token>, a pad token that was never
embedded). If the embedding was resized for them and not saved, their numbers are lost, and llama.cpp will read them as
several other tokens.

What to do: if they were trained, save the adapter again with `model.save_pretrained(DIR, save_embedding_layers=True)`.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.vocabulary import vocabulary_of
from converter.diagnostics import BaseCheck, Problem, Rule, Severity
from converter.rules.texts import listed


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the tokens."""
    vocabulary = vocabulary_of(adapter, base)
    if vocabulary and vocabulary.rowless:
        yield Problem("tokenizer", f"has tokens that no row is for: {listed(map(repr, vocabulary.rowless))}")


RULE = Rule("BM026", "token-without-row", Severity.WARNING, BaseCheck(check))
