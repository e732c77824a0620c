"""llama.cpp has no tokenizer that does what the base's tokenizer.json does, as far as is known here.

Why it matters: llama.cpp doesn't read tokenizer.json; it has some tens of tokenizers with names, and a wrong name gives
other tokens: a model that answers, and answers worse. The name is never guessed.

What to do: give a GGUF of the base with --base. If llama.cpp does have this tokenizer, please report the message.
"""

from collections.abc import Iterator

from converter.diagnostics import WHOLE_BASE, BaseCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter
from converter.read.base_model import BaseModel
from converter.read.tokenizer_model import tokenizer_fault


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield why the tokenizer isn't known."""
    if base.is_convertible_checkpoint and (base.path / "tokenizer.json").is_file():
        fault = tokenizer_fault(base.path, base.config)
        if fault:
            yield Problem("tokenizer.json", fault, WHOLE_BASE)


RULE = Rule("BM043", "unknown-tokenizer", Severity.ERROR, BaseCheck(check))
