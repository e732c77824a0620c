"""The adapter names a base of a family that the base given can't be of: its type is another.

Why it matters: families share names and shapes of modules (gemma and gemma2, llama and mistral, qwen2 and qwen3), so
that the adapter of one loads on the other without a word, and is wrong. What the base is stands in its own config or
header, which no one renames.

What to do: give the base that the adapter was trained on. If base_model_name_or_path is a name of one's own that only
sounds like another family's, correct it in adapter_config.json.
"""

import re
from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.model_names import family, without_cache
from converter.diagnostics import BaseCheck, Problem, Rule, Severity

# What llama.cpp calls the architectures of families. Those that go on behind it (qwen2vl, qwen3moe) are theirs too,
# unless with a number: gemma2 is no gemma.
_ARCHITECTURES: Final = {
    "gemma1": ("gemma",),
    "gemma1.1": ("gemma",),
    "gemma2": ("gemma2",),
    "gemma3": ("gemma3",),
    "gpt2": ("gpt2",),
    "llama2": ("llama",),
    "llama3": ("llama",),
    "llama3.1": ("llama",),
    "llama3.2": ("llama",),
    "phi3": ("phi3", "llama"),  # Unsloth publishes it as a mistral, which is llama.cpp's llama
    "phi3.5": ("phi3", "llama"),
    "qwen2": ("qwen2",),
    "qwen2.5": ("qwen2",),
    "qwen3": ("qwen3",),
    "smollm1": ("llama",),
    "smollm2": ("llama",),
}


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the name if the family in it has another architecture than the base."""
    named = without_cache(adapter.config.base_model_name_or_path or "") if adapter.config else ""
    stated = family(named)
    wanted = _ARCHITECTURES.get("".join(stated)) if stated else None
    if wanted and base.architecture and not any(_is_of(base.architecture.name, name) for name in wanted):
        yield Problem("base_model_name_or_path", f"is {named!r}, but {base.label} is of the type {base.model_type!r}")


def _is_of(architecture: str, name: str) -> bool:
    return re.fullmatch(rf"{name}(?!\d).*", architecture) is not None


RULE = Rule("BM013", "another-type-named", Severity.ERROR, BaseCheck(check))
