"""llama.cpp has no tokenizer that does what the base's tokenizer.json does, as far as is known here.

Why it matters: llama.cpp doesn't read tokenizer.json; it has some tens of tokenizers with names, and a wrong name gives
other tokens: a model that answers, and answers worse. The name is never guessed.

What to do: give a GGUF of the base with --base. If llama.cpp does have this tokenizer, please report the message.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import WHOLE_BASE, BaseCheck, Problem, Rule, Severity
from converter.read.files import Unreadable, exists


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield why the tokenizer isn't known."""
    if base.is_convertible_checkpoint and exists(base.path / "tokenizer.json"):
        fault = _fault(base)
        if fault:
            yield Problem("tokenizer.json", fault, WHOLE_BASE)


def _fault(base: BaseModel) -> str | None:
    from converter.derive.pre_tokenizers import UnknownTokenizer
    from converter.derive.tokenizer_model import tokenizer_structure
    from converter.read.tokenizer import read_bpe_files

    try:
        tokenizer_structure(read_bpe_files(base.path), base.config)
    except (UnknownTokenizer, Unreadable) as fault:
        return str(fault)
    return None


RULE = Rule("BM043", "unknown-tokenizer", Severity.ERROR, BaseCheck(check), gguf=True)
