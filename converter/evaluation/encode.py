"""Numbers to a GGML type's bytes, rounded once, and back.

F16 and BF16: IEEE round to nearest, ties to even, straight from float64. Block types: ggml's own rounding, by libgguf
where it is installed, else by gguf.quants (Q8_0 and the simple types only); both give ggml's bytes.
"""

from typing import Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from converter.dtypes import GgmlType
from converter.errors import ConverterError, RuleBroken, how_to_install
from converter.evaluation.finite import is_finite
from converter.values.rows import FLOAT_DTYPES, Array, dequantize

_LARGEST_FLOAT32: Final = 3.4028234663852886e38
# The largest magnitude a type can hold; Q8_0 keeps each block's scale, amax / 127, as F16. Of other block types the
# written scales are looked at.
_LARGEST: Final = {"F16": 65504.0, "Q8_0": 65504.0 * 127, "F32": _LARGEST_FLOAT32, "BF16": 3.3895313892515355e38}

OVERFLOW_CODE: Final = "NM010"


def encode(values: npt.NDArray[np.float64], ggml_type: GgmlType, name: str) -> Array:
    """Round float64 ``values`` (rows, columns) to ``ggml_type``; the array's bytes are the tensor's bytes.

    Raises RuleBroken (NM010) where a value is too large for the type.
    """
    _refuse_overflow(values, ggml_type, name)
    if ggml_type.name == "BF16":
        return _to_bfloat16(values)
    if ggml_type.is_float:
        return values.astype(FLOAT_DTYPES[ggml_type.name])
    blocks = _quantize(values.astype(np.float32), ggml_type)
    if not is_finite(np.ascontiguousarray(blocks).data, ggml_type):
        raise _too_large(_largest_in(values), ggml_type, name)
    return blocks


def decode(encoded: Array, ggml_type: GgmlType) -> Array:
    """The numbers behind ``encode``'s result."""
    return encoded if ggml_type.is_float else dequantize(encoded, ggml_type.name)


def _refuse_overflow(values: npt.NDArray[np.float64], ggml_type: GgmlType, name: str) -> None:
    found = _largest_in(values)
    if not found <= _LARGEST.get(ggml_type.name, _LARGEST_FLOAT32):  # NaN is refused too
        raise _too_large(found, ggml_type, name)


def _largest_in(values: npt.NDArray[np.float64]) -> float:
    return float(max(values.max(), -values.min())) if values.size else 0.0


def _too_large(found: float, ggml_type: GgmlType, name: str) -> RuleBroken:
    limit = f"{ggml_type.name}'s {_LARGEST[ggml_type.name]:.6g}" if ggml_type.name in _LARGEST else ggml_type.name
    return RuleBroken(OVERFLOW_CODE, name, f"a merged value of {found:.6g} is beyond {limit}; use --outtype f32")


def _to_bfloat16(values: npt.NDArray[np.float64]) -> Array:
    """Round float64 to BF16 once.

    ml_dtypes goes through float32, which can round twice. It errs only where the float32 is a tie for BF16 and is not
    the value itself, so those few are first moved one step towards the value.
    """
    single = values.astype(np.float32)
    ties = np.flatnonzero((single.view(np.uint32) & 0xFFFF) == 0x8000)
    if len(ties):
        exact, rounded = values.reshape(-1)[ties], single.reshape(-1)[ties]
        towards = np.where(exact > rounded, np.float32(np.inf), np.float32(-np.inf))
        single.reshape(-1)[ties] = np.where(exact == rounded, rounded, np.nextafter(rounded, towards))
    return single.astype(ml_dtypes.bfloat16)


def _quantize(values: npt.NDArray[np.float32], ggml_type: GgmlType) -> Array:
    from gguf import GGMLQuantizationType

    try:
        from libgguf import quantize_rows as to_blocks
    except ImportError:
        from gguf.quants import quantize as to_blocks
    try:
        blocks: Array = to_blocks(values, GGMLQuantizationType[ggml_type.name])
    except NotImplementedError as error:
        raise ConverterError(
            f"writing {ggml_type.name} needs libgguf; {how_to_install('quants')}, or use --outtype q8_0"
        ) from error
    return blocks
