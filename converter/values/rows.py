"""Reads rows and columns of a stored tensor as numbers, whatever it is stored as.

Floats keep their own type (BF16 and FP8 as ml_dtypes'), block-quantised GGUF becomes float32 as ggml dequantises it.
Bytes are read, not mapped: a mapped file counts as memory that a container pays for.
"""

from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from converter.dtypes import GGML_BY_NAME
from converter.errors import ConverterError
from converter.read.files import read_into
from converter.read.stored import StoredTensor

Array = npt.NDArray[Any]

FLOAT_DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}


def n_rows(tensor: StoredTensor) -> int:
    """Rows of a matrix; a vector has one element a row."""
    return tensor.shape[0]


def n_columns(tensor: StoredTensor) -> int:
    """Elements of one row; 1 for a vector."""
    return tensor.shape[1] if len(tensor.shape) > 1 else 1


def read_rows(tensor: StoredTensor, begin: int, end: int) -> Array:
    """Rows ``begin`` to ``end`` of a tensor, shape (end - begin, n_columns).

    Raises ConverterError where the file ends early, or its type is not one of numbers.
    """
    width = n_columns(tensor)
    dtype = FLOAT_DTYPES.get(tensor.dtype)
    if dtype is not None:
        if tensor.transposed:
            return _whole(tensor, dtype).T[begin:end]
        start = tensor.offset + begin * width * dtype.itemsize
        return _read(tensor, start, (end - begin) * width, dtype).reshape(end - begin, width)
    return _dequantized(tensor, begin, end)


def number_of(tensor: StoredTensor) -> float:
    """The one number of a tensor, rounded to float32. Raises ConverterError as ``read_rows`` does."""
    return float(read_rows(tensor._replace(shape=(1,)), 0, 1).astype(np.float32)[0, 0])


def read_columns(tensor: StoredTensor, begin: int, end: int) -> Array:
    """Columns ``begin`` to ``end`` of a float matrix, as rows: shape (end - begin, n_rows). Raises as ``read_rows``."""
    dtype = FLOAT_DTYPES.get(tensor.dtype)
    if dtype is None:
        raise _no_numbers(tensor)
    if tensor.transposed:
        return _whole(tensor, dtype)[begin:end]
    columns = np.empty((end - begin, n_rows(tensor)), dtype)
    for row in range(n_rows(tensor)):
        start = tensor.offset + (row * n_columns(tensor) + begin) * dtype.itemsize
        columns[:, row] = _read(tensor, start, end - begin, dtype)
    return columns


def _whole(tensor: StoredTensor, dtype: np.dtype[Any]) -> Array:
    """A transposed matrix as it is stored. It is a factor, of a few columns: there is no need to read it in parts."""
    return _read(tensor, tensor.offset, tensor.n_elements, dtype).reshape(tensor.shape[::-1])


def _read(tensor: StoredTensor, start: int, count: int, dtype: np.dtype[Any]) -> Array:
    values = np.empty(count, dtype)
    read_into(tensor.path, start, values.view(np.uint8).data)
    return values


def _no_numbers(tensor: StoredTensor) -> ConverterError:
    return ConverterError(f"{tensor.path}: a tensor is stored as {tensor.dtype}, which holds no floating-point numbers")


def _dequantized(tensor: StoredTensor, begin: int, end: int) -> Array:
    ggml_type = GGML_BY_NAME.get(tensor.dtype)
    if ggml_type is None:
        raise _no_numbers(tensor)
    row_nbytes = ggml_type.nbytes((n_columns(tensor),))
    start = tensor.offset + begin * row_nbytes
    blocks = _read(tensor, start, (end - begin) * row_nbytes, np.dtype(np.uint8)).reshape(end - begin, row_nbytes)
    try:
        return dequantize(blocks, tensor.dtype)
    except (NotImplementedError, ValueError, KeyError) as error:
        raise ConverterError(f"{tensor.path}: {tensor.dtype} can't be dequantised here: {error}") from error


def dequantize(blocks: Array, dtype: str) -> Array:
    """float32 of block-quantised rows given as bytes, shape (rows, row's bytes), as ggml dequantises them.

    By libgguf where it is installed (three times as fast), else by gguf.quants.
    """
    type_id = GGML_BY_NAME[dtype].id
    try:
        from libgguf import dequantize_rows
    except ImportError:
        return _without_libgguf(blocks, type_id)
    values: Array = dequantize_rows(blocks, type_id)
    return values


def _without_libgguf(blocks: Array, type_id: int) -> Array:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize as from_blocks

    values: Array = from_blocks(blocks, GGMLQuantizationType(type_id))
    return values
