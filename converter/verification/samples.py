"""The logits of both sides, a few positions at a time: llama.cpp's of a batch of sequences first, then PEFT's.

Never are both in memory: llama.cpp lets go of its models before the reference reads a layer.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from converter.verification.comparison import Sample
from converter.verification.forward import States
from converter.verification.llama_cpp import DEFAULTS, PROOF, LlamaCpp
from converter.verification.prompts import Sequences, batches, invoked
from converter.verification.reference import Reference

_NONE: Final = -1  # the token behind the last


@dataclass(frozen=True, slots=True)
class Served:
    """What llama.cpp runs: a model, its LoRA if it has one, and the GGUFs of bases that are at hand."""

    model: Path
    lora: Path | None
    base: Path | None
    quantized_base: Path | None = None


@dataclass(frozen=True, slots=True)
class _Theirs:
    """llama.cpp's logits of each sequence of a batch, float32 (n_tokens, n_vocab), in files that are mapped."""

    deployed: list[np.ndarray]
    deployed_by_default: list[np.ndarray]
    base: list[np.ndarray | None]
    quantized_base: list[np.ndarray | None]


def samples(
    served: Served, sequences: Sequences, reference: Reference, llama: LlamaCpp, progress: Callable[[int, int], None]
) -> Iterator[Sample]:
    """Logits at every position of every sequence. Raises LlamaCppFailed where llama.cpp can't run what is served."""
    n_done = 0
    n_known = {path: llama.n_vocab(path) for path in (served.base, served.quantized_base) if path}
    # Without its invocation tokens an activated LoRA does nothing.
    for batch in batches(invoked(sequences, reference.invocation_tokens), reference.longest_shared):
        progress(n_done, len(sequences))
        theirs = _of_llama_cpp(served, batch, n_known, llama)
        peft = reference.states(batch)
        with reference.without_adapter():
            base = reference.states(batch)
        with reference.forward.keeping_head():
            for states in zip(peft, base, strict=True):
                yield from _samples_of_one(*states, theirs, reference)
        n_done += len(batch)


def _of_llama_cpp(served: Served, batch: Sequences, n_known: Mapping[Path, int], llama: LlamaCpp) -> _Theirs:
    """The arrays are last first: each is taken, and its file goes, as soon as its sequence is compared."""
    in_order = tuple(reversed(batch))
    deployed, by_default = (
        [llama.logits(served.model, [tokens], served.lora, settings=settings)[0] for tokens in in_order]
        for settings in (PROOF, DEFAULTS)
    )
    bare, quantized = (
        [
            llama.logits(path, [tokens])[0] if path is not None and max(tokens) < n_known[path] else None
            for tokens in in_order
        ]
        for path in (served.base, served.quantized_base)
    )
    llama.release()
    return _Theirs(deployed, by_default, bare, quantized)


def _samples_of_one(peft: States, base: States, theirs: _Theirs, reference: Reference) -> Iterator[Sample]:
    deployed, by_default, bare = theirs.deployed.pop(), theirs.deployed_by_default.pop(), theirs.base.pop()
    quantized = theirs.quantized_base.pop()
    following = (*peft.tokens[1:], _NONE)
    for positions in reference.blocks(len(following)):
        with reference.without_adapter():
            base_logits = reference.forward.logits(base, positions)
        yield Sample(
            following[positions],
            peft=reference.forward.logits(peft, positions),
            peft_base=base_logits,
            deployed=deployed[positions],
            deployed_by_default=by_default[positions],
            base=None if bare is None else bare[positions],
            quantized_base=None if quantized is None else quantized[positions],
        )
