"""The tensors of one layer of a GGUF that have the numbers of one of a checkpoint's matrices."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from converter.matching.grids import Grid, Sheet
from converter.matching.orders import Unclear, Way, keeps, row_order, way_of
from converter.matching.texts import order_text
from converter.matching.weights import Weights
from converter.orders import order
from converter.read.stored import StoredTensor
from converter.values.orders import Indices, indices

Kind = Literal["matrix", "experts", "slab", "plain", "turned"]


class Cover(NamedTuple):
    """A tensor that has a matrix or a part of it, and how.

    ``kind``: it is the "matrix", a stack of all "experts", one "slab" of a stack, or one of each head's rows, "plain"
    or "turned" round. ``tensor`` is called so within its layer.
    """

    tensor: str
    kind: Kind
    way: Way

    def taken(self, weights: Weights) -> Indices:
        """Which rows of a matrix it has, in its order; of one that is transposed they are its columns."""
        n = weights.shape[-1 if self.way.transposed else -2]
        return indices(order(self.way.rows, n, {}), n)


class Of(NamedTuple):
    """What is looked for: a module's weights; ``slab`` is its number in a stack, where it may have one."""

    weights: Weights
    slab: int | None
    may_be_turned: bool
    must_be_turned: bool

    def sheet(self, expert: int = 0) -> Sheet:
        """The only matrix, or one expert's."""
        return Sheet(self.weights.matrices[expert])


def covers(of: Of, tensors: Mapping[str, StoredTensor]) -> tuple[tuple[Cover, ...], tuple[tuple[str, str], ...]]:
    """The tensors that have some of it; and those that may, by name, with what isn't clear."""
    found: list[Cover] = []
    unclear: list[tuple[str, str]] = []
    sheets = [of.sheet(e) for e in range(len(of.weights.matrices))]
    for name, tensor in tensors.items():
        for kind in _kinds(of, tensor):
            way = _way(of, sheets, tensor, kind)
            if isinstance(way, Unclear):
                unclear.append((name, way.why))
            elif way is not None:
                found.append(Cover(name, kind, way))
                break
    return tuple(found), tuple(unclear)


def _kinds(of: Of, tensor: StoredTensor) -> Iterator[Kind]:
    """In which ways the tensor could have it, by its shape alone."""
    shape = tensor.shape
    if 0 in shape:
        return
    if of.weights.is_of_experts:
        if len(shape) == 3 and shape[0] == len(of.weights.matrices):
            yield "experts"
    elif len(shape) == 2 or (len(shape) == 1 and of.weights.shape == (1, *shape)):
        yield "matrix"
    elif len(shape) == 3:
        if of.slab is not None and of.slab < shape[0]:
            yield "slab"
        n_rows, n_columns = of.weights.shape
        if n_rows % shape[0] == 0 and shape[0] > 1:
            yield from _of_heads(n_rows // shape[0], n_columns, shape)


def _of_heads(n_each: int, n_columns: int, shape: Sequence[int]) -> Iterator[Kind]:
    if shape[1] <= n_each and shape[2] == n_columns:
        yield "plain"
    if shape[2] <= n_each and shape[1] == n_columns:
        yield "turned"


def agrees(of: Of, tensor: StoredTensor, cover: Cover) -> bool:
    """Whether a tensor keeps it in the way in which another layer's does."""
    if cover.kind not in tuple(_kinds(of, tensor)):
        return False
    sheets = [of.sheet(e) for e in range(len(of.weights.matrices))]
    if cover.kind in ("plain", "turned"):
        return _heads(of, sheets[0], tensor, cover.kind) == cover.way
    return all(
        keeps(sheet, grid, cover.way) for sheet, grid in zip(sheets, _grids(of, tensor, cover.kind), strict=True)
    )


def _way(of: Of, sheets: Sequence[Sheet], tensor: StoredTensor, kind: Kind) -> Way | Unclear | None:
    if kind in ("plain", "turned"):
        return _heads(of, sheets[0], tensor, kind)
    way: Way | Unclear | None = None
    grids = _grids(of, tensor, kind)
    for sheet, grid in zip(sheets, grids, strict=True):
        way = (
            way_of(sheet.turned(), grid, may_be_turned=False)
            if of.must_be_turned
            else way_of(sheet, grid, may_be_turned=of.may_be_turned)
        )
        if not isinstance(way, Unclear):
            break
    if not isinstance(way, Way):
        return way
    way = way._replace(transposed=True) if of.must_be_turned else way
    # One alone was looked at by now.
    each = zip(sheets, grids, strict=True) if len(sheets) > 1 else ()
    return way if all(keeps(sheet, grid, way) for sheet, grid in each) else None


def _grids(of: Of, tensor: StoredTensor, kind: Kind) -> list[Grid]:
    if kind == "experts":
        return [Grid(tensor.slab(e)) for e in range(tensor.shape[0])]
    if kind == "slab":
        return [Grid(tensor.slab(of.slab or 0))]
    return [Grid(tensor if len(tensor.shape) == 2 else tensor._replace(shape=of.weights.shape))]


def _heads(of: Of, sheet: Sheet, tensor: StoredTensor, kind: Kind) -> Way | Unclear | None:
    """Each head's rows as a matrix of their own: the same range of each head's part of the module."""
    n, n_heads = of.weights.shape[0], tensor.shape[0]
    taken: list[Indices] = []
    for head in range(n_heads):
        slab = tensor.slab(head)
        text = row_order(sheet, Grid(slab, is_turned=kind == "turned"))
        if text is None or isinstance(text, Unclear):
            return text
        taken.append(indices(order(text, n, {}), n))
    rows = np.concatenate(taken)
    first, n_each = int(rows[0]), len(taken[0])
    wanted = first + np.arange(n_heads)[:, None] * (n // n_heads) + np.arange(n_each)
    text = order_text(rows, n) if np.array_equal(rows, wanted.ravel()) else None
    return Unclear("the rows of its heads are there, in no order of axes") if text is None else Way(text)
