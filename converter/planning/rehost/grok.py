"""Gemma 2 in llama.cpp's grok graph: any head, but attention is global, so the context ends at Gemma 2's window.

grok reads output.weight and has Gemma 2's four norms a layer, its soft caps and its GELU. What differs:

- n_head * head_dim must be the hidden size. So the hidden size grows to n' = H' head_dim with H' >= H heads, filled up
  with zeros. A mean over n' makes each RMS norm's result sqrt(n'/n) too large: its weight has the factor sqrt(n/n'),
  and eps the factor n/n'.
- The H' queries are shared out evenly to KV' key heads. The query heads of one key head are packed into groups of
  H'/KV'; where they don't fill their group, empty slots are zero in q and o; where they need several, k and v repeat.
- The embedding's scale, the attention's scale and the soft caps are metadata.
- Each layer adds a mixture of experts and divides by sqrt(2). One expert of zeros gives 0, and ffn_down has a factor
  sqrt(2). (The feed-forward part as the expert itself loads on builds before b6628 and gives garbage there; this form
  they refuse.)
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Final

from converter.dtypes import F16, F32
from converter.planning.conversion_plan import PlannedFile, PlannedTensor
from converter.planning.rehost.gemma import Gemma, Value, value_of, with_metadata
from converter.planning.rehost.layout import Axis, Layout, padded, relaid_tensors
from converter.sources import Zeros

_N_FF_EXPERT: Final = 32  # of the expert of zeros
# Gemma 2 27B alone scales attention by hidden / heads; llama.cpp knows it by its depth (src/models/gemma2.cpp).
_LAYERS_OF_27B: Final = 46


@dataclass(frozen=True, slots=True)
class Heads:
    """The host's heads: ``queries[h]`` is the slot of query head h, ``keys[slot]`` a key head, or None for zeros."""

    n_head: int
    n_head_kv: int
    queries: tuple[int, ...]
    keys: tuple[int | None, ...]


def heads_of(gemma: Gemma) -> Heads:
    """The fewest heads that fill Gemma's hidden size, and the fewest key heads that they can be shared out to."""
    n_head = max(-(-gemma.hidden // gemma.head_dim), gemma.n_head)
    group = gemma.n_head // gemma.n_head_kv
    for n_head_kv in (n for n in range(1, n_head + 1) if n_head % n == 0):
        slots = n_head // n_head_kv
        copies = -(-group // slots)  # key heads of the host for one of Gemma's
        if gemma.n_head_kv * copies <= n_head_kv:
            break
    queries = (
        (key * copies + query // slots) * slots + query % slots
        for key in range(gemma.n_head_kv)
        for query in range(group)
    )
    keys = [key for key in range(gemma.n_head_kv) for _ in range(copies)]
    padding = [None] * (n_head_kv - len(keys))
    return Heads(n_head, n_head_kv, tuple(queries), (*keys, *padding))


def layouts(gemma: Gemma) -> Mapping[str, Layout]:
    """Hidden sizes padded, heads packed."""
    heads, d = heads_of(gemma), gemma.head_dim
    n = padded(gemma.hidden, heads.n_head * d)
    queries = Axis(n.n, tuple((head * d, d, slot * d) for head, slot in enumerate(heads.queries)))
    taken = ((slot, head) for slot, head in enumerate(heads.keys) if head is not None)
    keys = Axis(heads.n_head_kv * d, tuple((head * d, d, slot * d) for slot, head in taken))
    norm = Layout(rows=n, factor=sqrt(gemma.hidden / n.n))
    return {
        "token_embd": Layout(columns=n),
        "output": Layout(columns=n),
        "output_norm": norm,
        "attn_norm": norm,
        "post_attention_norm": replace(norm, name="attn_output_norm"),
        "ffn_norm": norm,
        "post_ffw_norm": replace(norm, name="layer_output_norm"),
        "attn_q": Layout(rows=_joined(queries), columns=n),
        "attn_k": Layout(rows=_joined(keys), columns=n),
        "attn_v": Layout(rows=_joined(keys), columns=n),
        "attn_output": Layout(rows=n, columns=_joined(queries)),
        "ffn_gate": Layout(columns=n),
        "ffn_up": Layout(columns=n),
        "ffn_down": Layout(rows=n, factor=sqrt(2)),
    }


def _joined(axis: Axis) -> Axis:
    """The same with neighbouring moves as one: heads that stay in order are one piece."""
    moves: list[tuple[int, int, int]] = []
    for begin, n, to in axis.moves:
        if moves and (sum(moves[-1][:2]), moves[-1][2] + moves[-1][1]) == (begin, to):
            moves[-1] = (moves[-1][0], moves[-1][1] + n, moves[-1][2])
        else:
            moves.append((begin, n, to))
    return Axis(axis.n, tuple(moves))


def model(file: PlannedFile, gemma: Gemma, outtype: str | None) -> PlannedFile:
    """The planned Gemma 2 as grok."""
    n = heads_of(gemma).n_head * gemma.head_dim
    tensors = (*relaid_tensors(file, layouts(gemma), outtype), *_experts_of_zeros(gemma, n))
    return with_metadata(file, gemma, "grok", _metadata(file, gemma, n))._replace(tensors=tensors)


def _metadata(file: PlannedFile, gemma: Gemma, n: int) -> Mapping[str, Value | None]:
    values = {entry.key: value_of(entry) for entry in file.key_values}
    per_head = gemma.hidden // gemma.n_head if gemma.n_layer == _LAYERS_OF_27B else gemma.head_dim
    heads = heads_of(gemma)
    return {
        "context_length": min(gemma.context, gemma.window or gemma.context),
        "attention.sliding_window": None,
        "embedding_length": n,
        "attention.head_count": heads.n_head,
        "attention.head_count_kv": heads.n_head_kv,
        "attention.layer_norm_rms_epsilon": gemma.eps * gemma.hidden / n,
        "rope.freq_base": gemma.theta,
        "rope.dimension_count": gemma.head_dim,
        "expert_count": 1,
        "expert_used_count": 1,
        "expert_feed_forward_length": _N_FF_EXPERT,
        "embedding_scale": sqrt(gemma.hidden),
        "logit_scale": 1.0,
        "attention.output_scale": per_head**-0.5,
        # llama.cpp's own defaults for gemma2 (src/llama-hparams.h), which grok has others for.
        "attn_logit_softcapping": float(values.get("gemma2.attn_logit_softcapping") or 50.0),
        "final_logit_softcapping": float(values.get("gemma2.final_logit_softcapping") or 30.0),
        "router_logit_softcapping": 30.0,
    }


def _experts_of_zeros(gemma: Gemma, n: int) -> Iterator[PlannedTensor]:
    shapes = {
        "ffn_gate_inp": ((1, n), F32),
        "ffn_gate_exps": ((1, _N_FF_EXPERT, n), F16),
        "ffn_up_exps": ((1, _N_FF_EXPERT, n), F16),
        "ffn_down_exps": ((1, n, _N_FF_EXPERT), F16),
    }
    for layer in range(gemma.n_layer):
        for stem, (shape, ggml_type) in shapes.items():
            yield PlannedTensor(f"blk.{layer}.{stem}.weight", shape, ggml_type, Zeros(shape))
