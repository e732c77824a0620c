"""Gemma 1 in llama.cpp's gemma3 graph, every matrix unchanged, by a large epsilon.

gemma3 reads output.weight, and its graph is Gemma 1's with four more RMS norms a layer: of each query and key head,
after attention and after the feed-forward part. An RMS norm y = w x / sqrt(mean(x^2) + eps) is linear where eps is much
larger than mean(x^2): y = w x / sqrt(eps). So the whole residual stream is scaled by 2^k, and eps by 4^k:

- The norms of Gemma 1 itself see x 2^k with eps 4^k: they give what they gave, for the factors cancel.
- Behind them, queries, keys, and what attention and the feed-forward part give are as small as ever, and eps 4^k with
  k = 29 exceeds their mean squares by 10^8 and more. With s = sqrt(eps 4^k), the norms of queries and keys have the
  weight s, the other two s 2^k: they change nothing but the scale that the residual stream wants.

The factor enters with the embedding, E 2^k, which needs the exponents of F32 or BF16 (exact: only they change).
k = 16 leaves a KL divergence of 1e-5 in a harsh network, 20 leaves 1e-8, 24 and more the noise of float32.
"""

import struct
from collections.abc import Iterator, Mapping
from math import sqrt
from typing import Final

from converter.dtypes import BF16, F32, GgmlType
from converter.planning.conversion_plan import PlannedFile, PlannedTensor
from converter.planning.rehost.gemma import Gemma, with_metadata
from converter.planning.rehost.layout import Layout, relaid_tensors
from converter.sources import Filled

_K: Final = 29


def layouts(_gemma: Gemma) -> Mapping[str, Layout]:
    """Only the embedding changes."""
    return {"token_embd": Layout(factor=2.0**_K)}


def model(file: PlannedFile, gemma: Gemma, outtype: str | None) -> PlannedFile:
    """The planned Gemma 1 as gemma3."""
    eps = _float32(_float32(gemma.eps) * 4.0**_K)
    tensors = (*map(_with_range, relaid_tensors(file, layouts(gemma), outtype)), *_linear_norms(gemma, eps))
    metadata = {
        "attention.layer_norm_rms_epsilon": eps,
        "rope.freq_base": gemma.theta,
        "rope.freq_base_swa": gemma.theta,
    }
    return with_metadata(file, gemma, "gemma3", metadata)._replace(tensors=tensors)


def _with_range(tensor: PlannedTensor) -> PlannedTensor:
    return tensor._replace(type=_wide_range(tensor.type)) if tensor.name == "token_embd.weight" else tensor


def _wide_range(ggml_type: GgmlType) -> GgmlType:
    """BF16 where it is that or coarser; F32 keeps F16's mantissa."""
    return F32 if ggml_type.name in ("F32", "F16") else BF16


def _linear_norms(gemma: Gemma, eps: float) -> Iterator[PlannedTensor]:
    # ggml multiplies by the float32 1 / sqrt(eps): its inverse is the weight that undoes it.
    s = 1 / _float32(1 / _float32(sqrt(eps)))
    weights = {
        "attn_q_norm": (gemma.head_dim, s),
        "attn_k_norm": (gemma.head_dim, s),
        "post_attention_norm": (gemma.hidden, s * 2.0**_K),
        "post_ffw_norm": (gemma.hidden, s * 2.0**_K),
    }
    for layer in range(gemma.n_layer):
        for stem, (n, value) in weights.items():
            yield PlannedTensor(f"blk.{layer}.{stem}.weight", (n,), F32, Filled((n,), value))


def _float32(value: float) -> float:
    nearest: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return nearest
