"""A planned tensor's bytes, a block of rows at a time, so that memory is bounded whatever the model's size.

Merging is done in float64 and rounded once, so that neither block size nor BLAS threads change a byte.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np
import numpy.typing as npt

from converter.errors import JUDGED_BAD, ConverterError
from converter.plan.conversion_plan import (
    CopiedBytes,
    Delta,
    MergedRows,
    PlannedTensor,
    Rows,
    StoredColumns,
    StoredRows,
)
from converter.read.stored import StoredTensor
from converter.transforms import Identity, indices
from converter.values.rows import FLOAT_DTYPES, Array, n_columns, n_rows, read_columns, read_rows
from converter.write.encode import decode, encode

BLOCK_N_ELEMENTS: Final = 1 << 17  # 1 MB of float64 fits a core's cache
_COPY_NBYTES: Final = 1 << 22

Doubles = npt.NDArray[np.float64]


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
        case MergedRows() as source:
            yield from map(_bytes, _merged(tensor, source, kept, n_elements))
        case source:
            yield from map(_bytes, _stored(tensor, source, n_elements))


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


def _stored(tensor: PlannedTensor, source: Rows, n_elements: int) -> Iterator[Array]:
    scale = source.scale if isinstance(source, StoredRows) else 1.0
    keeps_type = scale == 1.0 and FLOAT_DTYPES.get(source.tensor.dtype) == FLOAT_DTYPES.get(tensor.type.name)
    for begin, end in _ranges(tensor.shape, n_elements):
        values = rows(source, begin, end)
        yield values if keeps_type else encode(values.astype(np.float64) * scale, tensor.type, tensor.name)


def _merged(tensor: PlannedTensor, source: MergedRows, kept: DeltaKept, n_elements: int) -> Iterator[Array]:
    right = _whole(source.delta.right)
    for begin, end in _ranges(tensor.shape, n_elements):
        delta = _delta_rows(source.delta, right, begin, end)
        merged = rows(source.base, begin, end).astype(np.float64)
        merged += delta
        encoded = encode(merged, tensor.type, tensor.name)
        kept.add(np.subtract(decode(encoded, tensor.type), merged, out=merged, dtype=np.float64), delta)
        yield encoded


def _delta_rows(delta: Delta, right: Doubles, begin: int, end: int) -> Doubles:
    product: Doubles = rows(delta.left, begin, end).astype(np.float64) @ right
    # Last, because the product of 16-bit factors is exact, in whatever order BLAS sums it. A scaling of 0.3 in the
    # factors would round every term, and values that lie on a tie of the output's type would follow the order.
    product *= delta.scaling
    return product


def _whole(source: Rows) -> Doubles:
    count = n_columns(source.tensor) if isinstance(source, StoredColumns) else n_rows(source.tensor)
    whole: Doubles = rows(source, 0, count).astype(np.float64)
    return whole


def rows(source: Rows, begin: int, end: int) -> Array:
    """Rows ``begin`` to ``end`` of a source, in its order and its own type."""
    match source:
        case StoredColumns(_, stored):
            return read_columns(stored, begin, end)
        case StoredRows(_, stored, Identity()):
            return read_rows(stored, begin, end)
        case StoredRows(_, stored, order):
            wanted = indices(order, n_rows(stored))[begin:end]
            first, last = int(wanted.min()), int(wanted.max())
            gathered: Array = read_rows(stored, first, last + 1)[wanted - first]
            return gathered


def _ranges(shape: tuple[int, ...], n_elements: int) -> Iterator[tuple[int, int]]:
    width = shape[1] if len(shape) > 1 else 1
    step = max(1, n_elements // max(1, width))
    for begin in range(0, shape[0], step):
        yield begin, min(begin + step, shape[0])
