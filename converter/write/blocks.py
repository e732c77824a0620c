"""A planned tensor's bytes, a block of rows at a time, so that memory is bounded whatever the model's size.

Merging is done in float64 and rounded once, so that neither block size nor BLAS threads change a byte.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import sqrt
from typing import Final

import numpy as np

from converter.errors import JUDGED_BAD, ConverterError
from converter.plan.conversion_plan import (
    CopiedBytes,
    Delta,
    Merged,
    PlannedTensor,
    ReplacedRows,
    Rows,
    Stacked,
)
from converter.read.stored import StoredTensor
from converter.values.rows import Array
from converter.write.encode import decode, encode
from converter.write.evaluate import Doubles, count, doubles, is_stored_as, stored_values

BLOCK_N_ELEMENTS: Final = 1 << 17  # 1 MB of float64 fits a core's cache
_COPY_NBYTES: Final = 1 << 22


@dataclass(slots=True)
class DeltaKept:
    """How much of a delta survives the rounding of W + D: 1 + <rounding error, D> / ||D||^2.

    The plain norm of the error would not tell: it is large beside a small delta even where the delta's mean effect
    is all there. ``noise`` is the error's own size beside ||D||.
    """

    tensor: str
    norm2: float = 0.0
    error_dot_delta: float = 0.0
    error_norm2: float = 0.0

    def add(self, error: Doubles, delta: Doubles) -> None:
        """Account for one block."""
        error, delta = error.reshape(-1), delta.reshape(-1)
        self.norm2 += float(delta @ delta)
        self.error_dot_delta += float(error @ delta)
        self.error_norm2 += float(error @ error)

    @property
    def share(self) -> float:
        """1 where everything is kept, 0 where the rounding undid the delta; 1 for a delta that is zero."""
        return 1.0 + self.error_dot_delta / self.norm2 if self.norm2 else 1.0

    @property
    def noise(self) -> float:
        """||rounding error|| / ||D||."""
        return sqrt(self.error_norm2 / self.norm2) if self.norm2 else 0.0


def blocks(tensor: PlannedTensor, kept: DeltaKept, n_elements: int = BLOCK_N_ELEMENTS) -> Iterator[bytes | memoryview]:
    """Yield the tensor's bytes in order; for a merged tensor ``kept`` is filled on the way.

    Raises ConverterError where a source can't be read, or a value is too large for the tensor's type.
    """
    match tensor.source:
        case CopiedBytes(_, stored):
            yield from _copied(stored)
        case Stacked(parts):
            for part in parts:
                matrix = replace(tensor, shape=tensor.shape[1:], source=part)
                yield from blocks(matrix, kept, n_elements)
        case Merged() as source:
            yield from map(_bytes, _merged(tensor, source, kept, n_elements))
        case source:
            yield from map(_bytes, _rows(tensor, source, n_elements))


def _bytes(array: Array) -> memoryview:
    # BF16 has no buffer protocol of its own, bytes have.
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _copied(stored: StoredTensor) -> Iterator[bytes]:
    left = stored.nbytes
    try:
        with stored.path.open("rb") as file:
            file.seek(stored.offset)
            while left and (chunk := file.read(min(left, _COPY_NBYTES))):
                left -= len(chunk)
                yield chunk
    except OSError as error:
        raise ConverterError(f"{stored.path}: can't be read: {error.strerror or error}") from error
    if left:
        raise ConverterError(f"{stored.path}: ended while it was copied", status=JUDGED_BAD)


def _rows(tensor: PlannedTensor, source: Rows, n_elements: int) -> Iterator[Array]:
    keeps_type = is_stored_as(source, tensor.type.name)
    for begin, end in _ranges(tensor.shape, n_elements):
        if keeps_type:
            yield stored_values(source, begin, end)
        else:
            yield encode(doubles(source, begin, end), tensor.type, tensor.name)


def _merged(tensor: PlannedTensor, source: Merged, kept: DeltaKept, n_elements: int) -> Iterator[Array]:
    merge = _Merge(source, tensor.shape, n_elements)
    for begin, end in _ranges(tensor.shape, n_elements):
        base = merge.base(begin, end)
        merged = merge.served(base, begin, end)
        encoded = encode(merged, tensor.type, tensor.name)
        change = np.subtract(merged, base, out=base)
        kept.add(np.subtract(decode(encoded, tensor.type), merged, out=merged, dtype=np.float64), change)
        yield encoded


class _Merge:
    """The rows of a Merged, for which what all blocks need is read once."""

    def __init__(self, source: Merged, shape: tuple[int, ...], n_elements: int) -> None:
        self._source = source
        self._width = shape[1] if len(shape) > 1 else 1
        self._n_base_rows = count(source.base)
        self._rights = [_whole(delta.right) if delta.right else None for delta in source.deltas]
        self._columns = self._column_factors(n_elements)

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
        for begin, end in _ranges((count(self._source.deltas[0].left), self._width), n_elements):
            norm2 += np.square(self._sum(self.base(begin, end), begin, end)).sum(axis=0)
        factors: Doubles = doubles(magnitude.values, 0, self._width)[:, 0] / np.sqrt(norm2)
        return factors


def _replace(merged: Doubles, replaced: ReplacedRows, begin: int) -> None:
    for i, index in enumerate(replaced.indices):
        if begin <= index < begin + len(merged):
            merged[index - begin] = doubles(replaced.rows, i, i + 1)


def _delta_rows(delta: Delta, right: Doubles | None, begin: int, end: int) -> Doubles:
    product = doubles(delta.left, begin, end)
    if right is not None:
        product = product @ right
    # Last, because the product of 16-bit factors is exact, in whatever order BLAS sums it. A scaling of 0.3 in the
    # factors would round every term, and values that lie on a tie of the output's type would follow the order.
    product *= delta.scaling
    return product


def _whole(source: Rows) -> Doubles:
    return doubles(source, 0, count(source))


def _ranges(shape: tuple[int, ...], n_elements: int) -> Iterator[tuple[int, int]]:
    width = shape[1] if len(shape) > 1 else 1
    step = max(1, n_elements // max(1, width))
    for begin in range(0, shape[0], step):
        yield begin, min(begin + step, shape[0])
