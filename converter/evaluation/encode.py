"""Numbers to a GGML type's bytes, rounded once, and back.

F16 and BF16: IEEE round to nearest, ties to even, straight from float64. Block types: ggml's own rounding, by libgguf
where it is installed, else by gguf.quants (Q8_0 and the simple types only); both give ggml's bytes.
"""

import sys
from collections.abc import Callable
from typing import Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from converter.dtypes import Q8_0, GgmlType
from converter.errors import ConverterError, RuleBroken, how_to_install
from converter.evaluation.finite import is_finite
from converter.values.rows import FLOAT_DTYPES, Array, dequantize

_LARGEST_FLOAT32: Final = 3.4028234663852886e38
# The largest magnitude a type can hold; Q8_0 keeps each block's scale, amax / 127, as F16. Of other block types the
# written scales are looked at.
_LARGEST: Final = {"F16": 65504.0, "Q8_0": 65504.0 * 127, "F32": _LARGEST_FLOAT32, "BF16": 3.3895313892515355e38}

OVERFLOW_CODE: Final = "NM010"

Numbers = npt.NDArray[np.float64] | npt.NDArray[np.float32]
Weights = npt.NDArray[np.float32]
# Of rows of numbers, a type and what else quantises them: the same bytes in less time.
Quantiser = Callable[[Weights, GgmlType, Callable[[Weights], Array]], Array]


def encode(
    values: Numbers,
    ggml_type: GgmlType,
    name: str,
    weights: Weights | None = None,
    quantiser: Quantiser | None = None,
) -> Array:
    """Round ``values`` (rows, columns) to ``ggml_type``; the array's bytes are the tensor's bytes.

    ``weights`` (columns,) are an imatrix's; without one ``quantiser`` may make block types. Raises RuleBroken (NM010)
    where a value is too large for the type.
    """
    _refuse_overflow(values, ggml_type, name)
    if ggml_type.name == "BF16":
        return _to_bfloat16(values)
    if ggml_type.is_float:
        return values.astype(FLOAT_DTYPES[ggml_type.name])
    singles = values.astype(np.float32, copy=False)
    if quantiser and weights is None:
        blocks = quantiser(singles, ggml_type, libggml(ggml_type))
    else:
        blocks = _quantize(singles, ggml_type, weights)
    if not is_finite(np.ascontiguousarray(blocks).data, ggml_type):
        raise _too_large(_largest_in(values), ggml_type, name)
    return blocks


def libggml(ggml_type: GgmlType) -> Callable[[Weights], Array]:
    """What quantises rows of numbers without an imatrix. Raises ConverterError where that needs libgguf."""
    return lambda rows: _quantize(rows, ggml_type, None)


def decode(encoded: Array, ggml_type: GgmlType) -> Array:
    """The numbers behind ``encode``'s result."""
    return encoded if ggml_type.is_float else dequantize(encoded, ggml_type.name)


def _refuse_overflow(values: Numbers, ggml_type: GgmlType, name: str) -> None:
    found = _largest_in(values)
    if not found <= _LARGEST.get(ggml_type.name, _LARGEST_FLOAT32):  # NaN is refused too
        raise _too_large(found, ggml_type, name)


def _largest_in(values: Numbers) -> float:
    return float(max(values.max(), -values.min())) if values.size else 0.0


def _too_large(found: float, ggml_type: GgmlType, name: str) -> RuleBroken:
    limit = f"{ggml_type.name}'s {_LARGEST[ggml_type.name]:.6g}" if ggml_type.name in _LARGEST else ggml_type.name
    return RuleBroken(OVERFLOW_CODE, name, f"a merged value of {found:.6g} is beyond {limit}; use --outtype f32")


def _to_bfloat16(values: Numbers) -> Array:
    """Round float64 to BF16 once.

    ml_dtypes goes through float32, which can round twice. It errs only where the float32 is a tie for BF16 and is not
    the value itself, so those few are first moved one step towards the value.
    """
    single = values.astype(np.float32)  # a copy, which is changed
    ties = np.flatnonzero((single.view(np.uint32) & 0xFFFF) == 0x8000)
    if len(ties):
        exact, rounded = values.reshape(-1)[ties], single.reshape(-1)[ties]
        towards = np.where(exact > rounded, np.float32(np.inf), np.float32(-np.inf))
        single.reshape(-1)[ties] = np.where(exact == rounded, rounded, np.nextafter(rounded, towards))
    return single.astype(ml_dtypes.bfloat16)


def _quantize(values: npt.NDArray[np.float32], ggml_type: GgmlType, weights: Weights | None) -> Array:
    try:
        from libgguf import quantize_rows
    except ImportError as error:
        return _without_libgguf(values, ggml_type, weights, error)
    blocks: Array = quantize_rows(values, ggml_type.id, weights)
    return blocks


def _how_to_get_it() -> str:
    """As the extra in pyproject.toml has it."""
    if sys.version_info >= (3, 14):
        return ", which has no wheel for this Python; use Python 3.13"
    return f"; {how_to_install('quants')}"


def _without_libgguf(
    values: npt.NDArray[np.float32], ggml_type: GgmlType, weights: Weights | None, missing: ImportError
) -> Array:
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    try:
        blocks: Array | None = (
            quantize(values, GGMLQuantizationType(ggml_type.id)) if weights is None or ggml_type is Q8_0 else None
        )
    except NotImplementedError:  # a type that gguf.quants only reads
        blocks = None
    if blocks is None:
        what = f"writing {ggml_type.name}{'' if weights is None else ' by an imatrix'}"
        raise ConverterError(f"{what} needs libgguf{_how_to_get_it()}, or use q8_0") from missing
    return blocks
