"""Gemma 1 in llama.cpp's spark2_5 graph: exact, for newer builds.

spark2_5 reads output.weight, and its graph is Gemma 1's but for two things:

- The embedding is not multiplied by sqrt(n). So it is stored with that factor.
- Each attention head is multiplied by sigmoid(gate x). A gate of zeros makes that 1/2, and attn_output has a factor 2.

Its sliding window is set beyond any context.
"""

from collections.abc import Mapping
from math import sqrt
from typing import Final

from converter.dtypes import F16
from converter.planning.conversion_plan import NewArray, PlannedFile, PlannedTensor
from converter.planning.rehost.gemma import Gemma, Value, with_metadata
from converter.planning.rehost.layout import Layout, relaid_tensors
from converter.read.gguf_header import BOOL
from converter.sources import Zeros

_NO_WINDOW: Final = 1 << 20


def layouts(gemma: Gemma) -> Mapping[str, Layout]:
    """The two factors."""
    return {"token_embd": Layout(factor=sqrt(gemma.hidden)), "attn_output": Layout(factor=2.0)}


def model(file: PlannedFile, gemma: Gemma, outtype: str | None) -> PlannedFile:
    """The planned Gemma 1 as spark2_5."""
    shape = (gemma.n_head, gemma.hidden)
    gates = (PlannedTensor(f"blk.{i}.attn_gate.weight", shape, F16, Zeros(shape)) for i in range(gemma.n_layer))
    metadata: dict[str, Value | NewArray | None] = {
        "rope.freq_base": gemma.theta,
        "rope.dimension_count": gemma.head_dim,
        "attention.sliding_window": _NO_WINDOW,
        # The loader aborts on a pattern without a single true.
        "attention.sliding_window_pattern": NewArray("", BOOL, (True,) * gemma.n_layer),
    }
    tensors = (*relaid_tensors(file, layouts(gemma), outtype), *gates)
    return with_metadata(file, gemma, "spark2_5", metadata)._replace(tensors=tensors)
