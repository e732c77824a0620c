"""The base is a Hugging Face directory of a kind whose settings for llama.cpp lie in its weights.

Why it matters: a GGUF of it has numbers in its metadata that no field of config.json says (xIELU's in Apertus), and
this tool makes metadata of the config alone. A LoRA file needs none of them.

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


RULE = Rule("BM048", "settings-in-weights", Severity.ERROR, BaseCheck(check))
