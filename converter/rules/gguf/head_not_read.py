"""llama.cpp's loader of this architecture never reads a head of its own.

Why it matters: for gemma and gemma2 the head is the embedding, for good. A GGUF with output.weight doesn't load
(`done_getting_tensors: wrong number of tensors`), and convert_hf_to_gguf.py drops the head of an untied checkpoint
with exit status 0: 0.88 of an adapter's effect was left undone on a tiny Gemma.

What to do: convert it with --untie. The model is then written for another graph of llama.cpp that computes the same
with a head of its own (--host; docs/hosts.md). Where there is none for the architecture, train without lm_head
(target_modules="all-linear" leaves it out), or tie the deltas of both ends with ensure_weight_tying=True and merge with
--to model.
"""

from collections.abc import Iterator
from typing import Final

from converter.derive.adapter import Adapter
from converter.derive.base_model import BaseModel
from converter.diagnostics import EVERY, TIED, UNTIED, BaseCheck, Kind, Problem, Rule, Severity

_HOSTED: Final = frozenset({"gemma", "gemma2"})


def check(_adapter: Adapter, base: BaseModel) -> Iterator[Problem]:
    """Yield the base if its head can't be parted, or is parted already and would be lost."""
    architecture = base.architecture
    if architecture is None or architecture.graph.reads_output:
        return
    blocks: frozenset[Kind] = UNTIED if base.tied else EVERY
    if architecture.name in _HOSTED:
        blocks = frozenset() if base.tied else TIED
    if blocks:
        message = (
            _NOT_KNOWN
            if base.match
            else f"llama.cpp's {architecture.name} has no output.weight: the head can't be a tensor of its own"
        )
        yield Problem(base.label, message, blocks)


_NOT_KNOWN: Final = "nothing tells whether llama.cpp reads an output.weight of it: an architecture without a table"


RULE = Rule("GG001", "head-not-read", Severity.ERROR, BaseCheck(check), gguf=True)
