"""Modules whose rows GGUF stacks by heads: DeepSeek's kv_b_proj, a stack of values and one of keys turned round.

A head's rows of B @ A are rows of B times A. Turned round they are A turned round times those rows turned round: so
either is a product of what is stored.
"""

from collections.abc import Iterator

from converter.orders import Order
from converter.planning.changes import Change
from converter.read.stored import StoredTensor
from converter.sources import Delta, Magnitude, Merged, Rows, StoredRows


class HeadStack:
    """The ``n`` heads of a changed module. ``rows`` are those of all heads, of the ``n_rows`` that it has."""

    def __init__(self, change: Change, rows: Order, n: int, n_rows: int) -> None:
        self._change = change
        self._is_turned = change.place.stacked == "turned"
        self._first, self._step = rows.runs[0].begin, n_rows // n
        self._n_each = rows.count(n_rows) // n

    def merged(self, head: int, base: Rows) -> Merged | Rows:
        """The matrix of one head, over that of the base."""
        own = self._change.saved or self._change.own_base
        if own:
            base = StoredRows(own.key, self._matrix(own.tensor, head))
        deltas = tuple(self._deltas(head))
        return Merged(base, deltas, self._magnitude(head)) if deltas else base

    def _deltas(self, head: int) -> Iterator[Delta]:
        for sign, pairs in ((1.0, self._change.pairs), (-1.0, self._change.initial)):
            for pair in pairs:
                a, b = pair.a, pair.b
                rows = StoredRows(b.key, self._matrix(b.tensor, head))
                if self._is_turned:
                    yield Delta(StoredRows(a.key, a.tensor.turned()), rows, sign * pair.scaling)
                else:
                    yield Delta(rows, StoredRows(a.key, a.tensor), sign * pair.scaling)

    def _matrix(self, tensor: StoredTensor, head: int) -> StoredTensor:
        part = tensor.part(self._first + head * self._step, self._n_each)
        return part.turned() if self._is_turned else part

    def _magnitude(self, head: int) -> Magnitude | None:
        """DoRA's, of which each row has one: of a matrix that is turned round each column."""
        for pair in self._change.pairs:
            if pair.magnitude:
                values = pair.magnitude.tensor.part(self._first + head * self._step, self._n_each)
                return Magnitude(StoredRows(pair.magnitude.key, values), "columns" if self._is_turned else "rows")
        return None
