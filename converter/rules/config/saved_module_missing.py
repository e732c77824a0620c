"""modules_to_save names a module that has no tensor.

Why it matters: the module was trained whole, and what was learned is not in the file. PEFT ends in a bare KeyError
when it loads such an adapter; tools that pass over the name serve the base's weights.

What to do: save the adapter again from the training run. If the name matches no module of the model, take it out of
modules_to_save.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.diagnostics import AdapterCheck, Problem, Rule, Severity

# PEFT adds both to the config of a classifier, which has one of them (peft/peft_model.py, PEFT 0.21.2).
_OF_CLASSIFIERS: Final = frozenset({"classifier", "score"})


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each name without a tensor."""
    if adapter.config is None or not adapter.tensors:
        return
    paths = {tensor.path for tensor in (*adapter.saved_modules, *adapter.left_out)}
    # PEFT compares the ends of paths, without regard to dots (_set_trainable in peft/utils/other.py).
    missing = [
        name
        for name in adapter.config.modules_to_save
        if not any(path.endswith(name) or f".{name}." in f".{path}" for path in paths)
    ]
    has_classifier = bool(_OF_CLASSIFIERS & set(adapter.config.modules_to_save) - set(missing))
    for name in missing:
        if not (has_classifier and name in _OF_CLASSIFIERS):
            yield Problem("modules_to_save", f"names {name!r}, but no saved tensor belongs to it")


RULE = Rule("CF009", "saved-module-missing", Severity.ERROR, AdapterCheck(check))
