"""The adapter's tokenizer has tokens that the base doesn't have, or the model has another number of rows.

Why it matters: a LoRA GGUF adds deltas to rows that are there. It carries neither rows nor the texts of tokens:
llama.cpp would read a new token as several old ones, which the adapter never saw.

What to do: write a model of its own with `adapter-to-gguf ADAPTER --base BASE --to model -o model.gguf`.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.vocabulary import has_only_base_rows, is_padding_alone, vocabulary_of
from converter.diagnostics import LORA, BaseCheck, Problem, Rule, Severity
from converter.rules.texts import listed


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the tokens, or the rows where no token tells them."""
    vocabulary = vocabulary_of(adapter, base)
    if vocabulary is None or vocabulary.unclear:
        return
    if vocabulary.new_tokens and not is_padding_alone(adapter, vocabulary):
        tokens = listed(f"{token.text!r} ({token.id})" for token in vocabulary.new_tokens)
        yield Problem("tokenizer", f"has tokens that {base.label} lacks: {tokens}", LORA)
    elif vocabulary.n_rows != vocabulary.n_base and not (
        vocabulary.n_rows < vocabulary.n_base and has_only_base_rows(adapter)
    ):
        found = f"has {vocabulary.n_rows} rows of head or embedding, {base.label} has {vocabulary.n_base}"
        yield Problem("tokenizer", found, LORA)


RULE = Rule("BM020", "new-tokens-as-lora", Severity.ERROR, BaseCheck(check), gguf=True)
