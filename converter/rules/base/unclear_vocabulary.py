"""Head or embedding have another number of rows than the base's, and nothing says which rows are tokens.

Why it matters: rows beyond the base's are new tokens, which a model must have, or padding, which llama.cpp's converter
cuts off (Gemma 3: 262,208 rows of 262,144 tokens). Only the tokenizer tells.

What to do: put the tokenizer that the adapter was trained with beside it (`tokenizer.save_pretrained(ADAPTER)`), or
the base's own if no token was added.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.vocabulary import has_only_base_rows, vocabulary_of
from converter.diagnostics import BaseCheck, Problem, Rule, Severity


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield what is unclear. Where all of its rows are the base's own, nothing has to be told."""
    vocabulary = vocabulary_of(adapter, base)
    if vocabulary and vocabulary.unclear and not has_only_base_rows(adapter):
        yield Problem("tokenizer", vocabulary.unclear)


RULE = Rule("BM021", "unclear-vocabulary", Severity.ERROR, BaseCheck(check), gguf=True)
