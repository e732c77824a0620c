"""A saved head, embedding or base layer has another shape than the base's.

Why it matters: it is of another model, or of a vocabulary that was resized in training. llama.cpp takes the
vocabulary from the GGUF, so rows would be missing or without a token.

What to do: give the base that the adapter was trained on. For a resized vocabulary merge with PEFT
(merge_and_unload), save with the tokenizer, and convert the merged model.
"""

from collections.abc import Iterator

from converter.diagnostics import BaseCheck, Problem, Rule, Severity
from converter.read.adapter import Adapter
from converter.read.base_model import BaseModel
from converter.rules.ends import ENDS


def check(adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield each whole weight of an end that doesn't match the base's."""
    for tensor in (*adapter.saved_modules, *adapter.base_layers):
        if base.quantization or tensor.module not in ENDS or not tensor.role.endswith("weight"):
            continue
        found, wanted = tensor.tensor.shape, base.shape(tensor.module)
        if wanted is not None and found != wanted:
            yield Problem(tensor.key, f"is {list(found)}, but {tensor.module} in {base.label} is {list(wanted)}")


RULE = Rule("BM005", "saved-tensor-doesnt-fit", Severity.ERROR, BaseCheck(check))
