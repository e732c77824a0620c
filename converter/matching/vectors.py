"""Norms and biases in a GGUF: as they are, or with Gemma's + 1. llama.cpp's converter keeps vectors in F32."""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np

from converter.evaluation.rows import stored_values
from converter.matching.weights import Weights
from converter.read.stored import StoredTensor
from converter.sources import StoredRows
from converter.values.orders import Indices
from converter.values.rows import FLOAT_DTYPES, Array, read_rows

_ADDENDS: Final = (0.0, 1.0)


class Vector(NamedTuple):
    """The tensor that has a vector, called so within its layer, and what is added to the checkpoint's numbers."""

    tensor: str
    add: float

    def agrees(self, weights: Weights, tensor: StoredTensor | None) -> bool:
        """Whether it has this one, too."""
        return tensor is not None and tensor.shape == weights.shape and _has(_values(weights), tensor, self.add)


def vectors(weights: Weights, tensors: Mapping[str, StoredTensor]) -> Iterator[Vector]:
    """The tensors that have the numbers, as they are or with 1 added."""
    values = _values(weights)
    for name, tensor in tensors.items():
        if tensor.shape == weights.shape:
            yield from (Vector(name, add) for add in _ADDENDS if _has(values, tensor, add))


def _values(weights: Weights) -> Array:
    (source,) = weights.matrices
    return stored_values(source, 0, weights.shape[0])[:, 0]


def _has(values: Array, tensor: StoredTensor, add: float) -> bool:
    if tensor.dtype not in FLOAT_DTYPES:
        return False
    # F16 is added to as F16, all else as F32: so do llama.cpp's converters (fingerprint.py).
    wide = values if values.dtype == np.float16 else values.astype(np.float32)
    wanted = (wide + wide.dtype.type(add)).astype(np.float32)
    return bool(np.array_equal(wanted, read_rows(tensor, 0, tensor.shape[0])[:, 0].astype(np.float32)))


def bias_agrees(stored: StoredTensor, tensor: StoredTensor, rows: Indices) -> bool:
    """Whether a GGUF's bias has the rows of a checkpoint's in this order."""
    if len(stored.shape) != 1 or tensor.shape != (len(rows),) or {stored.dtype, tensor.dtype} - FLOAT_DTYPES.keys():
        return False
    values = stored_values(StoredRows("", stored), 0, stored.shape[0])[:, 0].astype(np.float32)
    return bool(np.array_equal(values[rows], read_rows(tensor, 0, len(rows))[:, 0].astype(np.float32)))
