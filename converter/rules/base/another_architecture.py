"""The adapter was trained on a model of another architecture than the base's.

Why it matters: families share names and shapes of modules: gemma and gemma2, qwen2 and qwen3. Such an adapter loads
and is wrong. PEFT notes the class of the model in auto_mapping where no task_type is given.

What to do: give the base that the adapter was trained on.
"""

import re
from collections.abc import Iterator
from typing import Final

from converter.architectures import (
    Architecture,
    architecture_all_attention,
    architecture_named,
    architecture_of_model_type,
    architecture_with_experts,
)
from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import BaseCheck, Problem, Rule, Severity

_HEAD: Final = r"(For[A-Z]\w*|Model|LMHeadModel)$"


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield a class that belongs to another architecture; of a class that none is known for nothing can be said."""
    mapping = adapter.config.raw.get("auto_mapping") if adapter.config else None
    name = mapping.get("base_model_class") if isinstance(mapping, dict) else None
    trained = {found.name for found in _architectures(name)} if isinstance(name, str) else set()
    if trained and base.architecture and base.architecture.name not in trained:
        yield Problem("auto_mapping", f"has the class {name}, but {base.label} is of the type {base.model_type!r}")


def _architectures(class_name: str) -> Iterator[Architecture]:
    """The architectures that models of a class such as Gemma2ForCausalLM have: of Granite 4's several."""
    model_type = re.sub(_HEAD, "", class_name).lower()
    for found in (
        architecture_of_model_type(model_type) or architecture_named(model_type),
        architecture_all_attention(model_type),
        architecture_with_experts(model_type),
    ):
        if found:
            yield found


RULE = Rule("BM009", "another-architecture", Severity.ERROR, BaseCheck(check))
