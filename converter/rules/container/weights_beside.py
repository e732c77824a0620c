"""Weights lie beside the adapter that are no part of it: PEFT doesn't load them, and nothing is converted of them.

Why it matters: some trainers save a part of what they trained in a file of their own, such as embeddings, norms or a
projector (trainable_params.bin, non_lora_trainables.bin, new_embeddings.safetensors). Served without it the adapter
is not the model that was trained, and nothing else says so.

What to do: if the file holds trained weights, load it into the base as its trainer does, save that base, and give it
with --base. If it is of no use, move it away.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter
from converter.diagnostics import DirectoryCheck, Problem, Rule, Severity
from converter.read.checkpoint import weights_beside
from converter.read.files import could_not_read


def check(adapter: Adapter) -> Iterator[Problem]:
    """Yield each file of weights that the adapter says nothing about."""
    if any(fault.name != "config-missing" for fault in adapter.faults):
        return  # which files are the adapter's isn't known
    with could_not_read(adapter.path):
        beside = weights_beside(adapter.path)
    shards = {header.path.name for header in adapter.headers}
    beside = tuple(name for name in beside if name not in shards)
    for name in _sidecars(beside) if beside else ():
        yield Problem(name, "is beside the adapter and no part of it: PEFT doesn't load it, nothing is converted of it")


def _sidecars(names: tuple[str, ...]) -> tuple[str, ...]:
    from converter.read.sidecars import sidecars

    return sidecars(names)


RULE = Rule("ST012", "weights-beside", Severity.WARNING, DirectoryCheck(check))
