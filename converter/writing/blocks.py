"""A planned tensor's bytes, a block of rows at a time, so that memory is bounded whatever the model's size.

Merging is done in float64 and rounded once, so that neither block size nor BLAS threads change a byte.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np

from converter.dtypes import F32, F64, GGML_BY_NAME
from converter.errors import ConverterError
from converter.evaluation.encode import decode, encode
from converter.evaluation.finite import refuse_non_finite
from converter.evaluation.importance import importance_of
from converter.evaluation.matrices import BLOCK_N_ELEMENTS, MatrixRows, matrix_rows, ranges
from converter.evaluation.rows import Doubles, doubles, is_stored_as, stored_values
from converter.planning.conversion_plan import PlannedTensor
from converter.read.files import read_bytes
from converter.read.stored import StoredTensor
from converter.sources import CopiedBytes, Merged, Placed, Rows, Stacked, WideEmbedding
from converter.values.rows import Array

_COPY_NBYTES: Final = 1 << 20  # stays in a core's cache while it is looked through


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
    def share(self) -> float | None:
        """1 where everything is kept, 0 where the rounding undid the delta; None where there is none to see."""
        return 1.0 + self.error_dot_delta / self.norm2 if self.norm2 else None

    @property
    def noise(self) -> float | None:
        """||rounding error|| / ||D||."""
        return sqrt(self.error_norm2 / self.norm2) if self.norm2 else None


def blocks(tensor: PlannedTensor, kept: DeltaKept, n_elements: int = BLOCK_N_ELEMENTS) -> Iterator[bytes | memoryview]:
    """Yield the tensor's bytes in order; for a merged tensor ``kept`` is filled on the way.

    Raises ConverterError where a source can't be read, or a value is too large for the tensor's type.
    """
    match tensor.source:
        case CopiedBytes(_, stored):
            yield from _copied(stored, tensor.name)
        case Stacked(parts):
            for i, part in enumerate(parts):
                quantised = tensor.quantised and tensor.quantised.of_matrix(i, len(parts))
                matrix = tensor._replace(shape=tensor.shape[1:], source=part, quantised=quantised)
                yield from blocks(matrix, kept, n_elements)
        case Merged() | Placed() | WideEmbedding() as source:
            rows = matrix_rows(source, n_elements, F32 if tensor.quantised else tensor.type)
            yield from map(_bytes, _computed(tensor, rows, kept, n_elements))
        case source:
            yield from map(_bytes, _rows(tensor, source, n_elements))


def _bytes(array: Array) -> memoryview:
    # BF16 has no buffer protocol of its own, bytes have.
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _copied(stored: StoredTensor, name: str) -> Iterator[bytes]:
    ggml_type = GGML_BY_NAME[stored.dtype]
    step = _COPY_NBYTES // ggml_type.type_size * ggml_type.type_size
    for begin in range(0, stored.nbytes, step):
        chunk = read_bytes(stored.path, stored.offset + begin, min(step, stored.nbytes - begin))
        refuse_non_finite(chunk, ggml_type, name, of_base=True)
        yield chunk


def _rows(tensor: PlannedTensor, source: Rows, n_elements: int) -> Iterator[Array]:
    keeps_type = is_stored_as(source, tensor.type.name)
    encoded = _encoder(tensor)
    for begin, end in ranges(tensor.shape, n_elements):
        if keeps_type:
            values = stored_values(source, begin, end)
            refuse_non_finite(_bytes(values), tensor.type, tensor.name)
            yield values
        else:
            values = doubles(source, begin, end)
            yield encoded(values, values)


def _computed(tensor: PlannedTensor, rows: MatrixRows, kept: DeltaKept, n_elements: int) -> Iterator[Array]:
    encoded = _encoder(tensor)
    for begin, end in ranges(tensor.shape, n_elements):
        served, base = rows(begin, end)
        written = encoded(served, base)
        if base is not served:
            rounded = decode(written, tensor.type)
            kept.add(np.subtract(rounded, served, dtype=np.float64), np.subtract(served, base, out=base))
        yield written


def _encoder(tensor: PlannedTensor) -> Callable[[Doubles, Doubles], Array]:
    """What gives the bytes of rows as they are served; those of the base tell whose fault a number is."""
    importance = tensor.quantised and tensor.quantised.importance
    weights = importance_of(importance) if importance else None

    def encoded(served: Doubles, base: Doubles) -> Array:
        values = served.astype(np.float32) if tensor.quantised else served
        try:
            written = encode(values, tensor.type, tensor.name, weights)
        except ConverterError:
            refuse_non_finite(_bytes(base), F64, tensor.name)  # then it's no fault of the adapter's
            raise
        refuse_non_finite(_bytes(written), tensor.type, tensor.name)
        return written

    return encoded
