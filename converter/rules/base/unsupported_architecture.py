"""The base is of an architecture that this version doesn't convert for.

Why it matters: row orders, norms and tied heads differ between architectures, and a wrong guess gives a file that
loads and is wrong. An architecture is supported once it is proven in real llama.cpp.

What to do: use llama.cpp's own convert_lora_to_gguf.py, and compare logits before you serve the result.
"""

from collections.abc import Iterator

from converter.architectures import NAMES
from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseCheck, Problem, Rule, Severity


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the base's model type if no architecture takes it."""
    if base.architecture is None:
        yield Problem(base.label, f"is of the type {base.model_type!r}; supported are {', '.join(NAMES)}")


RULE = Rule("BM003", "unsupported-architecture", Severity.ERROR, BaseCheck(check), gguf=True)
