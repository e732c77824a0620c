"""What each tensor of each host must hold, from PEFT's weights."""

from collections.abc import Callable, Iterator, Mapping
from math import sqrt
from typing import Final

import numpy as np

from converter.derive.module_paths import EMBEDDING, HEAD
from converter.verification.host_wants import HostedGemma, Want, constant
from converter.verification.host_wide import wide

Wants = Iterator[tuple[str, Want]]

_NORM: Final = "model.norm.weight"
_EMBEDDING: Final = f"{EMBEDDING}.weight"
_HEAD: Final = f"{HEAD}.weight"


def _gemma3(gemma: HostedGemma) -> Wants:
    """Gemma 1 with the residual stream times 2^29, and norms that are linear: their weights undo 1 / sqrt(eps)."""
    stream, undone = 2.0**29, sqrt(gemma.number("attention.layer_norm_rms_epsilon"))
    yield "token_embd.weight", gemma.plain(_EMBEDDING, stream)
    yield "output.weight", gemma.plain(_HEAD)
    yield "output_norm.weight", gemma.plain(_NORM)
    yield from _plain_layers(gemma, {})
    for layer in range(gemma.n_layer):
        for stem in ("attn_q_norm", "attn_k_norm"):
            yield f"blk.{layer}.{stem}.weight", constant(undone)
        for stem in ("post_attention_norm", "post_ffw_norm"):
            yield f"blk.{layer}.{stem}.weight", constant(undone * stream)


def _spark2_5(gemma: HostedGemma) -> Wants:
    """Gemma 1 with the embedding's factor in the embedding, and attention doubled behind gates of one half."""
    yield "token_embd.weight", gemma.plain(_EMBEDDING, sqrt(gemma.hidden))
    yield "output.weight", gemma.plain(_HEAD)
    yield "output_norm.weight", gemma.plain(_NORM)
    yield from _plain_layers(gemma, {"attn_output": 2.0})
    for layer in range(gemma.n_layer):
        yield f"blk.{layer}.attn_gate.weight", constant(0.0, gemma.hidden)


def _plain_layers(gemma: HostedGemma, factors: Mapping[str, float]) -> Wants:
    for layer in range(gemma.n_layer):
        for stem, parameter in gemma.layer(layer):
            yield f"blk.{layer}.{stem}.weight", gemma.plain(parameter, factors.get(stem, 1.0))


_GROK_NAMES: Final = {"post_attention_norm": "attn_output_norm", "post_ffw_norm": "layer_output_norm"}


def _grok(gemma: HostedGemma) -> Wants:
    """Gemma 2 with a hidden size that its heads fill, and an expert of zeros beside each feed-forward part."""
    n = padded(gemma.hidden, int(gemma.number("embedding_length")))
    queries, keys = _heads(gemma)
    norm = sqrt(gemma.hidden / len(n))
    every = np.arange(gemma.reference.shape("model.layers.0.mlp.up_proj.weight")[0])
    maps = {
        "attn_q": (queries, n),
        "attn_k": (keys, n),
        "attn_v": (keys, n),
        "attn_output": (n, queries),
        "ffn_gate": (every, n),
        "ffn_up": (every, n),
        "ffn_down": (n, every),
    }
    tokens = np.arange(gemma.reference.shape(_EMBEDDING)[0])
    yield "token_embd.weight", mapped(gemma, _EMBEDDING, tokens, n)
    yield "output.weight", mapped(gemma, _HEAD, tokens, n)
    yield "output_norm.weight", mapped(gemma, _NORM, n, None, norm)
    for layer in range(gemma.n_layer):
        for stem, parameter in gemma.layer(layer):
            rows, columns = maps.get(stem, (n, None))
            factor = sqrt(2) if stem == "ffn_down" else 1.0 if stem in maps else norm
            name = _GROK_NAMES.get(stem, stem)
            yield f"blk.{layer}.{name}.weight", mapped(gemma, parameter, rows, columns, factor)
        for stem in ("ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"):
            tensor = gemma.stored.get(f"blk.{layer}.{stem}.weight")
            yield f"blk.{layer}.{stem}.weight", constant(0.0, *(tensor.tensor.shape[-1:] if tensor else ()))


def _heads(gemma: HostedGemma) -> tuple[np.ndarray, np.ndarray]:
    """Gemma's row behind each of the host's rows of queries and of keys; -1 where there is none."""
    d = int(gemma.number("attention.key_length"))
    n_head, n_key = (gemma.reference.shape(f"model.layers.0.self_attn.{p}_proj.weight")[0] // d for p in "qk")
    group, slots = n_head // n_key, int(gemma.number("attention.head_count") / gemma.number("attention.head_count_kv"))
    copies = -(-group // slots)
    slot, within = np.divmod(np.arange(int(gemma.number("attention.head_count")) * d), d)
    key, copy = np.divmod(slot // slots, copies)
    query = copy * slots + slot % slots
    there = (key < n_key) & (query < group)
    queries = np.where(there, (key * group + query) * d + within, -1)
    key_slot, within = np.divmod(np.arange(int(gemma.number("attention.head_count_kv")) * d), d)
    key = key_slot // copies
    return queries, np.where(key < n_key, key * d + within, -1)


def padded(n: int, to: int) -> np.ndarray:
    """``n`` indices, then -1."""
    return np.concatenate([np.arange(n), np.full(to - n, -1)])


def mapped(
    gemma: HostedGemma, parameter: str, rows: np.ndarray, columns: np.ndarray | None, factor: float = 1.0
) -> Want:
    """A parameter's rows and columns where the maps say; zeros where they say -1."""

    def expected(block: slice, served: bool) -> np.ndarray:  # noqa: FBT001  which of two weights
        wanted = rows[block]
        there = wanted >= 0
        values = factor * gemma.weight(parameter, wanted[there], served)
        if columns is None:
            result = np.zeros(len(wanted))
            result[there] = values
            return result
        result = np.zeros((len(wanted), len(columns)))
        result[np.ix_(there, columns >= 0)] = values[:, columns[columns >= 0]]
        return result

    identity = all(np.array_equal(axis, np.arange(len(axis))) for axis in (rows, columns) if axis is not None)
    return Want(expected, (parameter,), identity and factor == 1.0)


HOSTS: Final[Mapping[str, Callable[[HostedGemma], Wants]]] = {
    "gemma3": _gemma3,
    "spark2_5": _spark2_5,
    "grok": _grok,
    "wide": wide,
}
