"""Gemma 1 or 2 in its own architecture, hidden size widened, for a head that is the embedding plus a low-rank delta.

The graph stays gemma or gemma2, whose head is token_embd: windows, soft caps, flash attention and a quantised cache
stay as they are. The head's delta B A (r rows in A, the LoRA's scale in B) finds room in additional columns.

With w the weight of the last norm, A diag(w) = U S V^T (its singular values), the logits of Gemma with its own head are

    (E + B A) (w x / rms(x))  =  E (w x / rms(x))  +  B~ V^T x / rms(x)        with B~ = B U S.

So if columns n .. n + r of the residual stream always hold d V^T x, x being its first n columns, and the rows of
token_embd are [E, g B~] (d, g small), then a last norm with the weight [w, 1 / (d g)] gives exactly these logits.

**Keeping d V^T x** ("the shadow"). Everything that is added to x comes out of attn_output or ffn_down. Both get r rows
more, d V^T diag(w_post) W below W, where w_post is the norm behind them (Gemma 2 only), whose weight is 1 there.

**Getting it started.** token_embd is looked up too, so the stream begins as [X, b, 0...] with b = g B~ of the token
instead of [X, d V^T X, 0...]. Additional layers in front (one for Gemma 1; two for Gemma 2, so that windows keep their
parity) put that right, in the first one's feed-forward part, whose attention is zero. Its norm must not divide by what
differs from token to token. So each row of token_embd ends in a constant c, a filler e and f = |X|, where e gives all
rows the same norm C; the norm is then the factor 1 / (C / sqrt(n')), which its weight undoes. The gates of all units
used are K = (gate's weight) * c, where GELU is the identity, and the units subtract b, c, e and f, and add d V^T X.
Gemma 2 norms the result as well: f is added to another column t, which that norm's weight drops, so that the result's
norm is K C for every token (up to d and g, which are small for that).

**Norms.** The mean is over n' columns instead of n. With c0 = sqrt(n / n'): Gemma 2's stream is x / c0 (its embedding
is multiplied by sqrt(n') instead of sqrt(n), its post norms give 1 / c0 more), and the norms' weights have the factor
c0 before the matrices; eps stays. Gemma 1's E has the factor c0 and its stream stays x, eps has the factor n / n'.

n' is no multiple of 256, the K-quants' block: one scale for a part of E and all of g B~ would round B~ away, and
llama.cpp takes another type for such rows instead.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import log2, sqrt
from typing import Final

from converter.dtypes import F32
from converter.errors import ConverterError
from converter.evaluation.head_question import HeadBasis, HeadQuestion
from converter.planning.conversion_plan import PlannedFile, PlannedTensor
from converter.planning.rehost.gemma import Gemma, with_metadata
from converter.planning.rehost.head_delta import rank_of
from converter.planning.rehost.layout import Layout, matrix_of, named, padded, relaid, relaid_tensors
from converter.sources import (
    WIDE_TAIL,
    CopiedBytes,
    Delta,
    Filled,
    Given,
    Piece,
    Placed,
    Product,
    Rows,
    WideEmbedding,
    Zeros,
)

_K_QUANT: Final = 256
_Q8_0: Final = 32
_GAIN: Final = 2.0**-6  # g, in units of what makes b as large as the embedding
# The shadow's scale d: as small as the type's rounding of activations allows.
_SHADOW_F32: Final = 2.0**-9
_SHADOW: Final = 2.0**-5
_OPEN_GATE: Final = 16.0  # where GELU is the identity to the last bit of float32
_UNIT: Final = 2.0**-4  # of V^T in ffn_up, so that its products stay in F16's range
# Gemma 2 27B alone scales attention by hidden / heads; llama.cpp knows it by its depth (src/models/gemma2.cpp).
_LAYERS_OF_27B: Final = 46


@dataclass(frozen=True, slots=True)
class _Wide:
    """The numbers of one wide model. Columns are [x, shadow, nothing, then c, e, f, t and nothing]."""

    gemma: Gemma
    rank: int
    width: int
    shadow: float
    constant: float  # c in token_embd
    norm2: float  # C^2 / n'
    head: HeadBasis

    @property
    def c0(self) -> float:
        return sqrt(self.gemma.hidden / self.width)

    @property
    def embedding_factor(self) -> float:
        return _embedding_factor(self.gemma, self.width)

    @property
    def tail(self) -> int:
        return self.width - WIDE_TAIL

    @property
    def n_new_layers(self) -> int:
        return n_new_layers(self.gemma)

    @property
    def eps(self) -> float:
        return (
            self.gemma.eps if self.gemma.architecture == "gemma2" else self.gemma.eps * self.gemma.hidden / self.width
        )


def n_new_layers(gemma: Gemma) -> int:
    """Additional layers: for Gemma 2 as many as keep local layers local."""
    return 2 if gemma.architecture == "gemma2" else 1


def width_of(gemma: Gemma, rank: int) -> int:
    """n', with room for the rank and the tail."""
    width = _up(gemma.hidden + _up(rank, _Q8_0) + WIDE_TAIL, _Q8_0)
    return width if width % _K_QUANT else width + _Q8_0


def _up(n: int, to: int) -> int:
    return -(-n // to) * to


def _embedding_factor(gemma: Gemma, width: int) -> float:
    return 1.0 if gemma.architecture == "gemma2" else sqrt(gemma.hidden / width)


def fits(gemma: Gemma, rank: int) -> bool:
    """Whether the additional layer's units have room in the feed-forward part."""
    return rank > 0 and 2 * _up(rank, _Q8_0) + 4 <= gemma.ffn


def measured_head(file: PlannedFile, gemma: Gemma, head: tuple[Delta, ...]) -> HeadBasis:
    """What the numbers of the embedding, the last norm and the head's delta say. Raises ConverterError at no room."""
    from converter.evaluation.head_basis import measure_head

    rank = rank_of(head)
    if not fits(gemma, rank):
        raise ConverterError(f"the head's delta of rank {rank} is too large for --host wide")
    by_name = {tensor.name: tensor for tensor in file.tensors}
    embedding, norm = by_name["token_embd.weight"], matrix_of(by_name["output_norm.weight"])
    factor = _embedding_factor(gemma, width_of(gemma, rank))
    return measure_head(HeadQuestion(matrix_of(embedding), embedding.shape[0], norm, head, factor, _GAIN))


def model(
    file: PlannedFile, gemma: Gemma, outtype: str | None, head: tuple[Delta, ...], basis: HeadBasis
) -> PlannedFile:
    """The planned Gemma, whose head is its embedding plus ``head``, as a wide one."""
    by_name = {tensor.name: tensor for tensor in file.tensors}
    wide = _wide(by_name, gemma, rank_of(head), basis)
    tensors = tuple(_tensors(file._replace(tensors=_without_head(file)), by_name, wide, head, outtype))
    metadata = {
        "embedding_length": wide.width,
        "block_count": gemma.n_layer + wide.n_new_layers,
        "attention.layer_norm_rms_epsilon": wide.eps,
    }
    return with_metadata(file, gemma, gemma.architecture, metadata)._replace(tensors=tensors)


def _without_head(file: PlannedFile) -> tuple[PlannedTensor, ...]:
    return tuple(tensor for tensor in file.tensors if tensor.name not in ("output.weight", "token_embd.weight"))


def _wide(tensors: Mapping[str, PlannedTensor], gemma: Gemma, rank: int, basis: HeadBasis) -> _Wide:
    in_float32 = all(t.type is F32 for t in tensors.values() if len(t.shape) > 1)
    constant = _power_of_two(sqrt(basis.mean_norm2) / 2)
    norm2 = 1.02 * (basis.largest_sum + constant**2)
    return _Wide(gemma, rank, width_of(gemma, rank), _SHADOW_F32 if in_float32 else _SHADOW, constant, norm2, basis)


def _power_of_two(value: float) -> float:
    """The nearest power of two, which every type holds exactly."""
    return float(2.0 ** round(log2(value)))


def _tensors(
    file: PlannedFile,
    by_name: Mapping[str, PlannedTensor],
    wide: _Wide,
    head: tuple[Delta, ...],
    outtype: str | None,
) -> Iterator[PlannedTensor]:
    yield _embedding(by_name["token_embd.weight"], by_name["output.weight"], wide, head, outtype)
    layers = tuple(relaid_tensors(file, _layouts(wide), outtype, first_layer=wide.n_new_layers))
    shadowed = {str(replace(named(t.name), layer=_later(t.name, wide))): t for t in file.tensors}
    for tensor in layers:
        yield _with_shadow(tensor, shadowed[tensor.name], by_name, wide)
    yield from _new_layers(layers, wide)


def _later(name: str, wide: _Wide) -> int | None:
    layer = named(name).layer
    return None if layer is None else layer + wide.n_new_layers


def _embedding(
    tensor: PlannedTensor, own_head: PlannedTensor, wide: _Wide, head: tuple[Delta, ...], outtype: str | None
) -> PlannedTensor:
    shape = (tensor.shape[0], wide.width)
    columns = Layout(columns=padded(wide.gemma.hidden, wide.width), factor=wide.embedding_factor)
    # Of the end that the adapter touches.
    touched = tensor if isinstance(own_head.source, CopiedBytes) else own_head
    ggml_type = relaid(touched, columns, outtype).type
    source = WideEmbedding(
        shape, matrix_of(tensor), head, wide.head.mixing, wide.embedding_factor, wide.constant, wide.norm2
    )
    return PlannedTensor(tensor.name, shape, ggml_type, source)


def _layouts(wide: _Wide) -> Mapping[str, Layout]:
    gemma = wide.gemma
    n = padded(gemma.hidden, wide.width)
    before = Layout(rows=n, factor=wide.c0)
    per_head = gemma.hidden // gemma.n_head if _is_27b(gemma) else gemma.head_dim
    return {
        "attn_norm": before,
        "ffn_norm": before,
        "output_norm": before if gemma.architecture == "gemma2" else Layout(rows=n),
        "post_attention_norm": Layout(rows=n),
        "post_ffw_norm": Layout(rows=n),
        "attn_q": Layout(columns=n, factor=sqrt(gemma.head_dim / per_head)),
        "attn_k": Layout(columns=n),
        "attn_v": Layout(columns=n),
        "attn_output": Layout(rows=n),
        "ffn_gate": Layout(columns=n),
        "ffn_up": Layout(columns=n),
        "ffn_down": Layout(rows=n),
    }


def _is_27b(gemma: Gemma) -> bool:
    return gemma.architecture == "gemma2" and gemma.n_layer == _LAYERS_OF_27B


def _with_shadow(
    tensor: PlannedTensor, original: PlannedTensor, by_name: Mapping[str, PlannedTensor], wide: _Wide
) -> PlannedTensor:
    """The tensor with its rows or weights for the shadow's columns, where it has any."""
    match named(tensor.name).stem:
        case "post_attention_norm" | "post_ffw_norm":
            values: Rows | Product = Filled((wide.rank,), 1.0)
        case "output_norm":
            values = Given.of([wide.c0 / (wide.shadow * gain)] for gain in wide.head.gains)
        case "attn_output":
            values = _shadow_rows(original, _post_norm(original, "post_attention_norm", by_name), wide)
        case "ffn_down":
            values = _shadow_rows(original, _post_norm(original, "post_ffw_norm", by_name), wide)
        case _:
            return tensor
    n_columns = tensor.shape[1] if len(tensor.shape) > 1 else 1
    shadow = Piece(values, (wide.gemma.hidden, 0), (0, wide.rank), (0, n_columns))
    assert isinstance(tensor.source, Placed)  # noqa: S101  its layout pads it
    return tensor._replace(source=tensor.source._replace(pieces=(*tensor.source.pieces, shadow)))


def _post_norm(original: PlannedTensor, stem: str, by_name: Mapping[str, PlannedTensor]) -> PlannedTensor | None:
    return by_name.get(str(replace(named(original.name), stem=stem)))


def _shadow_rows(original: PlannedTensor, post_norm: PlannedTensor | None, wide: _Wide) -> Product:
    scaled = Given.of([wide.shadow * value for value in row] for row in wide.head.basis.rows())
    return Product(scaled, matrix_of(post_norm) if post_norm else None, matrix_of(original))


# --- The layers in front ----------------------------------------------------------------------------------------------


def _new_layers(layers: tuple[PlannedTensor, ...], wide: _Wide) -> Iterator[PlannedTensor]:
    """Layers of zeros with the first one's shapes and types, but for the feed-forward part of the very first."""
    pattern = [tensor for tensor in layers if named(tensor.name).layer == wide.n_new_layers]
    first = _first_layer(wide)
    for layer in range(wide.n_new_layers):
        for tensor in pattern:
            name = replace(named(tensor.name), layer=layer)
            pieces = first.get(name.stem, ()) if layer == 0 else ()
            source = Placed(tensor.shape, pieces) if pieces else Zeros(tensor.shape)
            yield PlannedTensor(str(name), tensor.shape, tensor.type, source)


def _first_layer(wide: _Wide) -> Mapping[str, tuple[Piece, ...]]:
    """The units: r that subtract b, r that add the shadow, and one each for c, e, f (and t)."""
    gemma, r, tail = wide.gemma, wide.rank, wide.tail
    step = _up(r, _K_QUANT if gemma.ffn >= 2 * _up(r, _K_QUANT) + _Q8_0 else _Q8_0)
    units = [0, step, 2 * step]
    rms = sqrt(wide.norm2 + wide.eps)
    c, b = wide.constant * sqrt(wide.width), gemma.hidden
    subtract = _diagonal(3, -1.0)
    down = [
        _piece(_diagonal(r, -1.0), b, units[0]),
        _piece(_diagonal(r, wide.shadow / _UNIT), b, units[1]),
        _piece(subtract, tail, units[2]),
    ]
    up = [
        _piece(_diagonal(r, 1.0), units[0], b),
        _piece(Given.of([_UNIT * value for value in row] for row in wide.head.basis.rows()), units[1], 0),
        _piece(_diagonal(3, 1.0), units[2], tail),
    ]
    if gemma.architecture == "gemma":
        # Nothing norms the result: the weight nu of the norm makes up for the open gate K, K nu = 1.
        gate = _power_of_two(_OPEN_GATE**2 / c)
        norms: dict[str, tuple[Piece, ...]] = {"ffn_norm": (_filled(wide.width, rms / sqrt(gate * c)),)}
    else:
        gate = _power_of_two(_OPEN_GATE / c)
        up.append(_piece(_diagonal(1, 1.0), units[2] + 3, tail + 2))
        down.append(_piece(_diagonal(1, 1.0), tail + 3, units[2] + 3))
        opened = gate * c
        post = sqrt(wide.norm2 * opened**2 + wide.eps) / opened
        norms = {
            "ffn_norm": (_filled(wide.width, rms),),
            "post_ffw_norm": (_filled(r, post, b), _filled(3, post, tail)),
        }
    n_single = 4 if gemma.architecture == "gemma2" else 3
    gates = [_piece(Filled((n, 1), gate), unit, tail) for n, unit in zip((r, r, n_single), units, strict=True)]
    return {**norms, "ffn_gate": tuple(gates), "ffn_up": tuple(up), "ffn_down": tuple(down)}


def _piece(matrix: Rows, row: int, column: int) -> Piece:
    n_rows, n_columns = matrix.shape if isinstance(matrix, Given | Filled) else (0, 0)
    return Piece(matrix, (row, column), (0, n_rows), (0, n_columns))


def _filled(n: int, value: float, at: int = 0) -> Piece:
    return Piece(Filled((n,), value), (at, 0), (0, n), (0, 1))


def _diagonal(n: int, value: float) -> Given:
    return Given.of([value if i == j else 0.0 for j in range(n)] for i in range(n))
