"""What a wide host must hold: Gemma's weights in the first columns, the head's delta and its shadow in others.

The delta's directions V are the adapter's choice of basis, so they are read from the file. That the head and all shadow
rows follow from them is then checked as products, to a relative error that the rounding of V and of the rows explains.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np

from converter.derive.module_paths import EMBEDDING, HEAD
from converter.verification.host_wants import HostedGemma, Want, whole
from converter.verification.sums import ProductSums
from converter.verification.tensor_proof import TensorCheck

_EMBEDDING: Final = f"{EMBEDDING}.weight"
_HEAD: Final = f"{HEAD}.weight"
_NORM: Final = "model.norm.weight"
_TAIL: Final = 32  # columns: constant, filler, length of the embedding, and room
_UNIT: Final = 2.0**-4  # of the directions where they are stored
# Relative errors of products of rounded factors.
_TOLERANCE: Final = {"F32": 1e-5, "F16": 4e-3, "BF16": 3e-2, "Q8_0": 5e-2}


@dataclass(frozen=True, slots=True)
class _Wide:
    gemma: HostedGemma
    n: int
    width: int
    rank: int
    step: int  # the first unit that holds a direction
    directions: np.ndarray  # V, (r, n)
    shadow: float  # d

    @property
    def c0(self) -> float:
        return sqrt(self.n / self.width)

    @property
    def embedding_factor(self) -> float:
        return 1.0 if self.is_gemma2 else self.c0

    @property
    def is_gemma2(self) -> bool:
        return self.gemma.of == "gemma2"

    @property
    def n_new_layers(self) -> int:
        return 2 if self.is_gemma2 else 1


def _read(gemma: HostedGemma) -> _Wide:
    n, width = gemma.hidden, int(gemma.number("embedding_length"))
    up, down = (whole(gemma.stored[f"blk.0.{stem}.weight"]) for stem in ("ffn_up", "ffn_down"))
    (units,) = np.nonzero(up[:, :n].any(axis=1))
    rank = int(np.count_nonzero(whole(gemma.stored["output_norm.weight"])[n:]))
    step = int(units[0]) if len(units) else 0
    return _Wide(gemma, n, width, rank, step, up[step : step + rank, :n] / _UNIT, float(down[n, step]) * _UNIT)


def wide(gemma: HostedGemma) -> Iterator[tuple[str, Want]]:
    """Every tensor; what only products can tell (wide_relations) is taken as it is stored."""
    it = _read(gemma)
    yield "token_embd.weight", _main_columns(it, "token_embd.weight", _EMBEDDING, it.embedding_factor)
    factor = it.c0 if it.is_gemma2 else 1.0
    yield "output_norm.weight", _vector(it, "output_norm.weight", _NORM, factor)
    for layer in range(gemma.n_layer):
        for stem, parameter in gemma.layer(layer):
            name = f"blk.{layer + it.n_new_layers}.{stem}.weight"
            yield name, _layer_want(it, stem, name, parameter)
    for layer in range(it.n_new_layers):
        for stem, _ in gemma.layer(0):
            name = f"blk.{layer}.{stem}.weight"
            yield name, _new_want(it, layer, stem, name)


def _layer_want(it: _Wide, stem: str, name: str, parameter: str) -> Want:
    match stem:
        case "attn_norm" | "ffn_norm":
            return _vector(it, name, parameter, it.c0, room=0.0)
        case "post_attention_norm" | "post_ffw_norm":
            return _vector(it, name, parameter, 1.0, room=1.0)
        case "attn_output" | "ffn_down":
            return _main_rows(it, name, parameter)
        case _:
            return _main_columns(it, name, parameter)


def _vector(it: _Wide, name: str, parameter: str, factor: float, room: float | None = None) -> Want:
    """Gemma's weights, then ``room`` for each direction (None: what is stored), then zeros."""

    def expected(block: slice, served: bool) -> np.ndarray:  # noqa: FBT001  which of two weights
        values = np.zeros(it.width)
        values[: it.n] = factor * it.gemma.weight(parameter, slice(None), served)
        shadow = slice(it.n, it.n + it.rank)
        values[shadow] = whole(it.gemma.stored[name])[shadow] if room is None else room
        return values[block]

    return Want(expected, (parameter,))


def _main_columns(it: _Wide, name: str, parameter: str, factor: float = 1.0) -> Want:
    """Gemma's weights in the first columns, behind them zeros; in the embedding what is stored."""
    is_embedding = parameter == _EMBEDDING

    def expected(block: slice, served: bool) -> np.ndarray:  # noqa: FBT001  which of two weights
        values = it.gemma.stored[name].values(block)
        values[:, it.n :] *= is_embedding
        values[:, : it.n] = factor * it.gemma.weight(parameter, block, served)
        return values

    return Want(expected, (parameter, _HEAD) if is_embedding else (parameter,))


def _main_rows(it: _Wide, name: str, parameter: str) -> Want:
    """Gemma's weights in the first rows, then the shadow's as they are stored, then zeros."""

    def expected(block: slice, served: bool) -> np.ndarray:  # noqa: FBT001  which of two weights
        rows = np.arange(block.start, block.stop)
        values = it.gemma.stored[name].values(block)
        values[rows >= it.n + it.rank] = 0.0
        values[rows < it.n] = it.gemma.weight(parameter, rows[rows < it.n], served)
        return values

    return Want(expected, (parameter,))


def _new_want(it: _Wide, layer: int, stem: str, name: str) -> Want:
    def expected(block: slice, _served: bool) -> np.ndarray:  # noqa: FBT001  the same for both
        values = np.zeros(it.gemma.stored[name].tensor.shape)
        if layer == 0:
            _fill_first_layer(it, stem, name, values)
        return values[block]

    return Want(expected)


def _fill_first_layer(it: _Wide, stem: str, name: str, values: np.ndarray) -> None:
    """Units: r that take b away, r that bring the shadow in, one each for constant, filler, length (and sink)."""
    n, r, step, tail = it.n, it.rank, it.step, it.width - _TAIL
    every, last = np.arange(r), 2 * step
    if stem == "ffn_up":
        values[every, n + every] = 1.0
        values[step : step + r, :n] = it.directions * _UNIT
        values[last + np.arange(3), tail + np.arange(3)] = 1.0
        values[last + 3, tail + 2] = it.is_gemma2
    elif stem == "ffn_down":
        values[n + every, every] = -1.0
        values[n + every, step + every] = it.shadow / _UNIT
        values[tail + np.arange(3), last + np.arange(3)] = -1.0
        values[tail + 3, last + 3] = it.is_gemma2
    elif stem == "ffn_gate":
        units = [*every, *(step + every), *range(last, last + (4 if it.is_gemma2 else 3))]
        values[units, tail] = whole(it.gemma.stored[name])[0, tail]
    elif stem in ("ffn_norm", "post_ffw_norm"):
        stored = whole(it.gemma.stored[name])
        columns = [*range(n, n + r), *range(tail, tail + 3)] if stem == "post_ffw_norm" else slice(None)
        values[columns] = stored[tail]


# --- What only products tell ------------------------------------------------------------------------------------------


def wide_relations(gemma: HostedGemma) -> Iterator[TensorCheck]:
    """The head's delta, the equal lengths of the embedding's rows, and the shadow rows of every layer."""
    it = _read(gemma)
    yield _head(it)
    yield _lengths(it)
    posts = {"attn_output": "post_attention_norm", "ffn_down": "post_ffw_norm"}
    for layer in range(gemma.n_layer):
        for stem, post in posts.items():
            norm = gemma.named(post, layer)
            weights = gemma.stored[f"blk.{layer + it.n_new_layers}.{stem}.weight"]
            projected = it.directions * (gemma.all(norm) if norm else 1.0)
            shadow = ProductSums()
            wanted = it.shadow * projected @ gemma.all(str(gemma.named(stem, layer)))
            shadow.add(whole(weights)[it.n : it.n + it.rank], wanted)
            yield shadow.judged(f"{weights.tensor.name} (shadow)", weights.tensor.type.name, _TOLERANCE)


def _head(it: _Wide) -> TensorCheck:
    weights, delta = it.gemma.stored["token_embd.weight"], ProductSums()
    last = whole(it.gemma.stored["output_norm.weight"])[it.n : it.n + it.rank] * it.shadow / it.c0
    for block in weights.blocks():
        head, embedding = (it.gemma.weight(name, block, served=True) for name in (_HEAD, _EMBEDDING))
        own = weights.values(block)[:, it.n : it.n + it.rank]
        delta.add((own * last) @ it.directions, (head - embedding) * it.gemma.all(_NORM))
    return delta.judged("token_embd.weight (head's delta)", weights.tensor.type.name, _TOLERANCE)


def _lengths(it: _Wide) -> TensorCheck:
    """All rows are as long, and the first norm's weight undoes that length: both as shares of it."""
    weights, tail, lengths = it.gemma.stored["token_embd.weight"], it.width - _TAIL, ProductSums()
    norm2 = np.concatenate([(weights.values(block) ** 2).sum(axis=1) for block in weights.blocks()])
    undone = sqrt(norm2.mean() + it.gemma.number("attention.layer_norm_rms_epsilon"))
    if not it.is_gemma2:
        gate, constant = whole(it.gemma.stored["blk.0.ffn_gate.weight"])[0, tail], weights.values(slice(0, 1))[0, tail]
        undone /= sqrt(gate * constant * sqrt(it.width))
    first = float(whole(it.gemma.stored["blk.0.ffn_norm.weight"])[tail])
    worst = max(norm2 / norm2.mean(), key=lambda share: abs(share - 1))
    lengths.add(np.array([worst, first / undone]), np.ones(2))
    return lengths.judged("token_embd.weight (lengths)", weights.tensor.type.name, _TOLERANCE)
