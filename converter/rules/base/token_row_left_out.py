"""Rows of tokens (trainable_token_indices) lie beyond the rows of the served model.

Why it matters: there is no place for them. A token that the tokenizer doesn't name can't be served, and what was
trained for it would be gone without a word.

What to do: put the tokenizer that the adapter was trained with beside it (`tokenizer.save_pretrained(ADAPTER)`), or
train again with the ids of tokens that it has.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.vocabulary import vocabulary_of
from converter.diagnostics import MODEL, BaseCheck, Problem, Rule, Severity
from converter.rules.texts import listed


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the rows of each module that no row of the output is for."""
    vocabulary = vocabulary_of(adapter, base)
    if vocabulary is None or vocabulary.unclear:
        return
    for rows in adapter.token_rows:
        beyond = [index for index in rows.indices if index >= vocabulary.n_rows]
        if beyond:
            tokens = listed(map(str, beyond))
            yield Problem(
                rows.tensor.key, f"is of the tokens {tokens}, and the model has {vocabulary.n_rows} rows", MODEL
            )


RULE = Rule("BM028", "token-row-left-out", Severity.ERROR, BaseCheck(check), gguf=True)
