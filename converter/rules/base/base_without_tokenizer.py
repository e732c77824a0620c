"""The base is a Hugging Face directory without a tokenizer.json.

Why it matters: a GGUF carries its tokenizer, and a merged model or an untied base gets that of the base. A LoRA file
needs none.

What to do: put the model's tokenizer.json, tokenizer_config.json and chat_template.jinja into the directory. Of an old
model that has tokenizer.model or vocab.json alone, transformers makes one:
AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY).
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import WHOLE_BASE, BaseCheck, Problem, Rule, Severity
from converter.read.files import exists


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield a directory without a tokenizer."""
    if base.is_convertible_checkpoint and not exists(base.path / "tokenizer.json"):
        yield Problem(base.label, "has no tokenizer.json", WHOLE_BASE)


RULE = Rule("BM042", "base-without-tokenizer", Severity.ERROR, BaseCheck(check), gguf=True)
