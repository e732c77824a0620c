"""The base is of an architecture that this version has no table for.

Why it matters: row orders, norms and tied heads differ between architectures, and a wrong guess gives a file that
loads and is wrong. A table is proven in real llama.cpp: also which LoRA its graph honours, which no file says.

What to do: merge with --to model: give a GGUF that llama.cpp made of the base as --base, and the Hugging Face directory
that it was made from as --checkpoint. Where each touched matrix lies is then found by comparing the two, or refused
(BM050). A LoRA file needs a table; docs/architectures.md says of which other architectures llama.cpp's own
convert_lora_to_gguf.py makes a good one.
"""

from collections.abc import Iterator
from typing import Final

from converter.architectures import NAMES
from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import EVERY, LORA, BaseCheck, Problem, Rule, Severity

_CHECKPOINT: Final = "the Hugging Face directory that the GGUF was made from as --checkpoint"


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the base's model type if there is no table of it."""
    if base.match:
        yield Problem(base.label, f"is of the type {base.model_type!r}, and a LoRA file needs a table", LORA)
    elif base.architecture is None:
        found = f"is of the type {base.model_type!r}; tables are there of {', '.join(NAMES)}"
        yield Problem(base.label, f"{found}; {_advice(base)}", LORA if base.checkpoint else EVERY)


def _advice(base: BaseModel) -> str:
    if base.checkpoint:
        return "--to model does without"
    if base.format == "gguf":
        return f"--to model does without: give {_CHECKPOINT}"
    return f"--to model does without: give a GGUF that llama.cpp made of it as --base, and {_CHECKPOINT}"


RULE = Rule("BM003", "unsupported-architecture", Severity.ERROR, BaseCheck(check), gguf=True)
