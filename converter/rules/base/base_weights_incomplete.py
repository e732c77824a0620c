"""The base lacks weights, or has some that are no floats, or of another shape than its config or metadata says.

Why it matters: a merged model, or an untied base, is written from all of the base's weights; a LoRA file needs only
config.json. llama.cpp refuses a GGUF in which a tensor is missing.

What to do: download the whole model (every file that model.safetensors.index.json names), or give the base as a GGUF.
Weights in pytorch_model.bin are pickles, which can run code: load the model where you trust it, and save it with
save_pretrained, which writes model.safetensors.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.derive.checkpoint_parts import disordered, misshaped, missing, without_numbers
from converter.diagnostics import WHOLE_BASE, BaseCheck, Problem, Rule, Severity
from converter.read.checkpoint import pickles


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield a directory without weights, or the first tensor that is missing, is of no floats, or doesn't fit."""
    for module in adapter.modules:
        why = disordered(base, module)
        if why:
            yield Problem(f"{module} in {base.label}", why)
            return
    if not base.is_convertible_checkpoint:
        return
    if not base.tensors:
        pickle = next(pickles(base.path), None)
        held = f"has its weights in {pickle.name}, a pickle, which is not opened" if pickle else "has no weights"
        yield Problem(base.label, f"{held}; wanted model.safetensors", WHOLE_BASE)
        return
    lacking = tuple(missing(base))
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        yield Problem(base.label, f"lacks the weights of {lacking[0]}{more}", WHOLE_BASE)
    for key, dtype in without_numbers(base):
        yield Problem(key, f"is stored as {dtype}, which holds no floating-point numbers", WHOLE_BASE)
        return
    for key, found, wanted in misshaped(base):
        yield Problem(key, f"has the shape {list(found)}, wanted {list(wanted)} by config.json", WHOLE_BASE)
        return


RULE = Rule("BM040", "base-weights-incomplete", Severity.ERROR, BaseCheck(check), gguf=True)
