"""A merged model or an untied base is made from a GGUF, and the base is a Hugging Face directory.

Why it matters: metadata and tokenizer of the output come from the base GGUF, byte for byte; this version doesn't make
them from a Hugging Face directory. A LoRA file needs neither.

What to do: give the base as a GGUF with --base, in any quantisation (convert_hf_to_gguf.py of llama.cpp makes one).
"""

from collections.abc import Iterator

from converter.diagnostics import MODEL, BaseCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter
from converter.read.base_model import BaseModel


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield a Hugging Face base that would do as a GGUF."""
    if base.format == "huggingface" and base.architecture and not base.quantization:
        yield Problem(base.label, "is a Hugging Face directory, wanted a GGUF", MODEL | {"untie-lora"})


RULE = Rule("GG003", "base-is-not-gguf", Severity.ERROR, BaseCheck(check))
