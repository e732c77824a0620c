"""The base is a Hugging Face directory of a kind that this tool makes no GGUF of.

Why it matters: a GGUF of it has what is no renaming or order of its weights: heads taken apart (DeepSeek), packed
experts (gpt-oss), or metadata that no table tells (Jamba). A LoRA file needs none of it.

What to do: make a GGUF of the base with llama.cpp's convert_hf_to_gguf.py, and give that as --base.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import WHOLE_BASE, BaseCheck, Problem, Rule, Severity


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the base, with what lies in its weights."""
    if base.format == "huggingface" and base.architecture and base.architecture.metadata.only_copied:
        message = f"is a directory, and {base.architecture.metadata.only_copied}: give a GGUF that llama.cpp made of it"
        yield Problem(base.label, message, WHOLE_BASE)


RULE = Rule("BM048", "directory-not-converted", Severity.ERROR, BaseCheck(check), gguf=True)
