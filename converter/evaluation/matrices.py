"""The rows of matrices that are computed: merged ones, and those laid out anew for a host's graph.

Each block of rows comes twice, with the adapter's changes and without, so that the writer can tell what rounding keeps
of them. Memory is bounded by a block and by what has as few rows or columns as the adapter's rank.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np

from converter.dtypes import GgmlType
from converter.evaluation.encode import decode, encode
from converter.evaluation.rows import Doubles, as_stored, count, doubles
from converter.sources import (
    WIDE_TAIL,
    Delta,
    Merged,
    Piece,
    Placed,
    Product,
    ReplacedRows,
    Rows,
    Source,
    WideEmbedding,
    has_delta,
    shape_of,
)
from converter.values.rows import Array

# Rows with the adapter's changes, and without: one and the same array where there are none.
Pair = tuple[Doubles, Doubles]
MatrixRows = Callable[[int, int], Pair]

BLOCK_N_ELEMENTS: Final = 1 << 17  # 1 MB of float64 fits a core's cache


def matrix_rows(source: Merged | Rows | Product | Placed | WideEmbedding, n_elements: int, to: GgmlType) -> MatrixRows:
    """What gives rows ``begin`` to ``end`` of a source. ``to`` is the type that they will be stored as."""
    match source:
        case Merged():
            return _Merge(source, n_elements).rows
        case Placed():
            return _Placing(source, n_elements, to).rows
        case Product():
            return _product(source, n_elements, to)
        case WideEmbedding():
            return _Widening(source, n_elements, to).rows
        case rows:
            return lambda begin, end: _same(doubles(rows, begin, end))


def _same(values: Doubles) -> Pair:
    return values, values


class _Merge:
    """The rows of a Merged, for which what all blocks need is read once."""

    def __init__(self, source: Merged, n_elements: int) -> None:
        self._source = source
        self._width = _width(shape_of(source.base))
        self._n_base_rows = count(source.base)
        self._rights = [_whole(delta.right) if delta.right else None for delta in source.deltas]
        self._columns = self._column_factors(n_elements)

    def rows(self, begin: int, end: int) -> Pair:
        """The rows as they are served, and as the base has them."""
        base = self.base(begin, end)
        return self.served(base, begin, end), base

    def base(self, begin: int, end: int) -> Doubles:
        """The base's rows; zeros where it has no more."""
        n = max(0, min(end, self._n_base_rows) - begin)
        rows = np.zeros((end - begin, self._width))
        if n:
            rows[:n] = doubles(self._source.base, begin, begin + n)
        return rows

    def served(self, base: Doubles, begin: int, end: int) -> Doubles:
        """The rows as they are served."""
        merged = self._sum(base, begin, end)
        if self._columns is not None:
            merged *= self._columns
        elif self._source.magnitude:
            norms = np.linalg.norm(merged, axis=1, keepdims=True)
            merged *= doubles(self._source.magnitude.values, begin, end) / norms
        for replaced in self._source.replaced:
            _replace(merged, replaced, begin)
        return merged

    def _sum(self, base: Doubles, begin: int, end: int) -> Doubles:
        merged = base.copy()
        for delta, right in zip(self._source.deltas, self._rights, strict=True):
            merged += _delta_rows(delta, right, begin, end)
        return merged

    def _column_factors(self, n_elements: int) -> Doubles | None:
        """What each column of an embedding with DoRA is multiplied by; its norm takes a pass over all rows."""
        magnitude = self._source.magnitude
        if magnitude is None or magnitude.of == "rows":
            return None
        norm2 = np.zeros(self._width)
        for begin, end in ranges((count(self._source.deltas[0].left), self._width), n_elements):
            norm2 += np.square(self._sum(self.base(begin, end), begin, end)).sum(axis=0)
        factors: Doubles = doubles(magnitude.values, 0, self._width)[:, 0] / np.sqrt(norm2)
        return factors


class Terms(NamedTuple):
    """Rows of a matrix that is a sum of two: base + scaling * left @ right."""

    base: Array
    left: Doubles
    right: Doubles
    scaling: float


def is_sum_of_two(source: Source) -> bool:
    """Whether a source is a base and one product of factors, of which ``terms`` tells the rows."""
    return (
        isinstance(source, Merged)
        and len(source.deltas) == 1
        and not (source.magnitude or source.replaced)
        and source.deltas[0].right is not None
        and count(source.base) == count(source.deltas[0].left)
    )


def terms(source: Merged) -> Callable[[int, int], Terms]:
    """What gives the terms of rows ``begin`` to ``end`` of a sum of two."""
    (delta,) = source.deltas
    if delta.right is None:
        raise ValueError("no product of factors")
    right = _whole(delta.right)

    def of_rows(begin: int, end: int) -> Terms:
        return Terms(as_stored(source.base, begin, end), doubles(delta.left, begin, end), right, delta.scaling)

    return of_rows


def _replace(merged: Doubles, replaced: ReplacedRows, begin: int) -> None:
    for i, index in enumerate(replaced.indices):
        if begin <= index < begin + len(merged):
            merged[index - begin] = doubles(replaced.rows, i, i + 1)


def _delta_rows(delta: Delta, right: Doubles | None, begin: int, end: int) -> Doubles:
    left = doubles(delta.left, begin, end)
    product = left if right is None else left @ right
    # Last, because the product of 16-bit factors is exact, in whatever order BLAS sums it. A scaling of 0.3 in the
    # factors would round every term, and values that lie on a tie of the output's type would follow the order.
    product *= delta.scaling
    return product


def _whole(source: Rows) -> Doubles:
    return doubles(source, 0, count(source))


def _width(shape: tuple[int, ...]) -> int:
    return shape[1] if len(shape) > 1 else 1


def ranges(shape: tuple[int, ...], n_elements: int) -> Iterator[tuple[int, int]]:
    """Begin and end of blocks of rows, each of about ``n_elements``."""
    step = max(1, n_elements // max(1, _width(shape)))
    for begin in range(0, shape[0], step):
        yield begin, min(begin + step, shape[0])


class _Placing:
    """The rows of a Placed. Pieces of one matrix share what it costs to have its rows."""

    def __init__(self, source: Placed, n_elements: int, to: GgmlType) -> None:
        self._source = source
        self._has_delta = has_delta(source)
        self._width = _width(source.shape)
        matrices = dict.fromkeys(piece.matrix for piece in source.pieces)
        self._matrices = {matrix: matrix_rows(matrix, n_elements, to) for matrix in matrices}

    def rows(self, begin: int, end: int) -> Pair:
        served = np.zeros((end - begin, self._width))
        base = np.zeros_like(served) if self._has_delta else served
        read: dict[tuple[Merged | Rows | Product, int, int], Pair] = {}
        for piece in self._source.pieces:
            low, high = max(begin, piece.at[0]), min(end, piece.at[0] + piece.rows[1] - piece.rows[0])
            if low >= high:
                continue
            shift = piece.rows[0] - piece.at[0]
            part = (piece.matrix, low + shift, high + shift)
            if part not in read:
                read[part] = self._matrices[piece.matrix](*part[1:])
            for whole, values in zip((served, base), read[part], strict=True):
                _place(whole[low - begin : high - begin], piece, values)
        return served, base


def _place(rows: Doubles, piece: Piece, values: Doubles) -> None:
    first, last = piece.columns
    rows[:, piece.at[1] : piece.at[1] + last - first] = values[:, first:last] * piece.factor


def _product(source: Product, n_elements: int, to: GgmlType) -> MatrixRows:
    """Rows of left @ diag(columns) @ matrix, summed over blocks of the matrix's rows."""
    left, rows = doubles(source.left, 0, count(source.left)), matrix_rows(source.matrix, n_elements, to)
    shape = shape_of(source.matrix.base if isinstance(source.matrix, Merged) else source.matrix)
    weights = _weighted(left, source.columns, n_elements, to)
    products = [np.zeros((len(left), _width(shape))) for _ in range(2 if has_delta(source) else 1)]
    for begin, end in ranges(shape, n_elements):
        for i, values in zip(range(len(products)), rows(begin, end), strict=False):
            products[i] += weights[:, begin:end] @ values
    return lambda begin, end: (products[0][begin:end], products[-1][begin:end])


def _weighted(left: Doubles, columns: Merged | Rows | None, n_elements: int, to: GgmlType) -> Doubles:
    if columns is None:
        return left
    served, _ = matrix_rows(columns, n_elements, to)(0, left.shape[1])
    weighted: Doubles = left * served[:, 0]
    return weighted


class _Widening:
    """The rows of a WideEmbedding."""

    def __init__(self, source: WideEmbedding, n_elements: int, to: GgmlType) -> None:
        self._source = source
        self._to = to
        self._embedding = matrix_rows(source.embedding, n_elements, to)
        self._mixing = doubles(source.mixing, 0, count(source.mixing))

    def rows(self, begin: int, end: int) -> Pair:
        served, base = (rows * self._source.factor for rows in self._embedding(begin, end))
        head = head_factors(self._source.head, begin, end) @ self._mixing
        whole = np.zeros((end - begin, self._source.shape[1]))
        (n, r), fixed = (served.shape[1], head.shape[1]), self._source.shape[1] - WIDE_TAIL
        whole[:, :n], whole[:, n : n + r] = served, head
        norm2 = np.square(served).sum(axis=1)
        whole[:, fixed] = self._source.constant
        whole[:, fixed + 2] = self._stored(np.sqrt(norm2))
        whole[:, fixed + 1] = np.sqrt(self._source.norm2 - np.square(whole).sum(axis=1))
        without = whole.copy()
        without[:, :n], without[:, n : n + r] = base, 0.0
        return whole, without

    def _stored(self, values: Doubles) -> Doubles:
        """The values as the type will hold them: the filler then makes up for what they are off."""
        if not self._to.is_float:
            return values
        rounded = decode(encode(values[:, None], self._to, "token_embd.weight"), self._to)
        return rounded.astype(np.float64)[:, 0]


def head_factors(head: tuple[Delta, ...], begin: int, end: int) -> Doubles:
    """Rows of B, the left sides of the head's deltas beside each other, times their scalings."""
    return np.hstack([delta.scaling * doubles(delta.left, begin, end) for delta in head])
