"""llama.cpp has no tokenizer that does what the base's tokenizer.json does, as far as is known here.

Why it matters: llama.cpp doesn't read tokenizer.json; it has some tens of tokenizers with names, and a wrong name gives
other tokens: a model that answers, and answers worse. The name is never guessed.

What to do: give a GGUF of the base with --base. If llama.cpp does have this tokenizer, please report the message.
"""

from collections.abc import Iterator

from converter.diagnostics import WHOLE_BASE, BaseCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter
from converter.read.base_model import BaseModel
from converter.read.pre_tokenizers import UnknownTokenizer
from converter.read.tokenizer_model import read_tokenizer_model


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield why the tokenizer isn't known."""
    if not base.is_convertible_checkpoint:
        return
    try:
        read_tokenizer_model(base.path, base.dims["vocab"], base.config)
    except UnknownTokenizer as unknown:
        yield Problem("tokenizer.json", str(unknown), WHOLE_BASE)


RULE = Rule("BM043", "unknown-tokenizer", Severity.ERROR, BaseCheck(check))
