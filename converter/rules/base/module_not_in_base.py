"""The adapter changes a module that the base doesn't have, or that llama.cpp has no tensor for.

Why it matters: the delta has nowhere to go. It is the adapter of another model, or of a larger one of the family.

What to do: give the base that the adapter was trained on: of some models there are copies whose projections are fused,
and others that have them apart. A classifier (task_type SEQ_CLS, TOKEN_CLS, QUESTION_ANS)
can't be a GGUF of a language model: serve it with transformers and PEFT.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import tower_of
from converter.diagnostics import BaseCheck, Problem, Rule, Severity

# peft/peft_model.py (PEFT 0.21.2) saves them whole.
_HEADS_OF_OTHERS: Final = frozenset({"classifier", "score", "qa_outputs"})
_PARTS: Final = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
_OTHER_TASKS: Final = frozenset({"SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS"})


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each module that the adapter changes and the base lacks; vision towers are vision-tower-changed."""
    if base.architecture is None:
        return
    changed = (tensor.module for tensor in adapter.tensors if tensor.role not in ("unknown", "shared"))
    not_found = base.match.missing if base.match else ()  # which is matrix-not-found
    for module in dict.fromkeys(changed):
        if module in not_found:
            continue
        if tower_of(module) is None and (base.place(module) is None or base.shape(module) is None):
            yield Problem(module, _why(adapter, base, module))


def _why(adapter: Adapter, base: BaseModel, module: str) -> str:
    task = adapter.config.raw.get("task_type") if adapter.config else None
    if module in _HEADS_OF_OTHERS and task in _OTHER_TASKS:
        return (
            f"is the head of a model that classifies (task_type {task}): a language model has none, so it has no place"
        )
    fused = _fused(base, module)
    if fused:
        return (
            f"is not in {base.label}, which has it within {fused}: the adapter is of a copy of the model with these "
            "apart; give that one, such as unsloth's, or a GGUF of it"
        )
    return f"is not in {base.label} ({base.model_type}, {base.dims['n_layer']} layers)"


def _fused(base: BaseModel, module: str) -> str | None:
    """The module that holds another one's rows in this base, with others' (Phi 3)."""
    parent, _, name = module.rpartition(".")
    whole = next((whole for whole, parts in _PARTS.items() if name in parts), None)
    return f"{parent}.{whole}" if whole and base.place(f"{parent}.{whole}") else None


RULE = Rule("BM001", "module-not-in-base", Severity.ERROR, BaseCheck(check))
