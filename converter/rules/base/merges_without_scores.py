"""The base is a Hugging Face directory whose merges no scores of llama.cpp's SentencePiece tokenizer can say.

Why it matters: llama.cpp joins the neighbours of the best score, tokenizers those whose merge comes first. Both give
the same tokens where each token's merges stand together and are all there, as transformers writes them. Else some text
is cut in another way, and the model answers worse.

What to do: give a GGUF of the base with --base. A LoRA file needs no tokenizer.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import WHOLE_BASE, BaseValuesCheck, Problem, Rule, Severity
from converter.read.files import Unreadable, exists
from converter.rules.base import unknown_tokenizer


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield why not. What is no tokenizer of llama.cpp's at all is unknown-tokenizer."""
    is_known = base.is_convertible_checkpoint and exists(base.path / "tokenizer.json")
    if not is_known or any(unknown_tokenizer.check(adapter, base)):
        return
    from converter.derive.pre_tokenizers import UnknownTokenizer
    from converter.derive.tokenizer_model import require_scores

    try:
        require_scores(base.path, base.config)
    except (UnknownTokenizer, Unreadable) as fault:
        yield Problem("tokenizer.json", str(fault), WHOLE_BASE)


RULE = Rule("BM047", "merges-without-scores", Severity.ERROR, BaseValuesCheck(check), gguf=True)
