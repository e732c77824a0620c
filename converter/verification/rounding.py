"""How far a stored value may lie from the one it stands for: half a unit in the last place, or a block's step.

F32, F16, BF16: IEEE 754's round to nearest. Q8_0: 32 values share a scale of amax / 127 that is itself an F16
(quantize_row_q8_0_ref in llama.cpp's ggml/src/ggml-quants.c).
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

# Mantissa bits after the leading one, and the exponent of the smallest normal number.
_FLOATS: Final[Mapping[str, tuple[int, int]]] = {"F32": (23, -126), "F16": (10, -14), "BF16": (7, -126)}
_Q8_0_BLOCK: Final = 32
# Whoever merges in float32 rounds twice on the way to F16 or BF16, and sums in another order may tip a tie.
SLACK: Final = 1 + 2.0**-10


def has_bound(type_name: str) -> bool:
    """Whether `rounding_bound` knows the type."""
    return type_name in _FLOATS or type_name == "Q8_0"


def rounding_bound(values: np.ndarray, type_name: str) -> np.ndarray:
    """The largest error of each value (float64, any shape, rows last) when its row is stored as ``type_name``."""
    if type_name == "Q8_0":
        return _q8_0_bound(values)
    mantissa, smallest = _FLOATS[type_name]
    exponent = np.where(values == 0, smallest, np.frexp(values)[1])
    unit: np.ndarray = np.ldexp(1.0, np.maximum(exponent - 1, smallest) - mantissa)
    return unit * (SLACK / 2)


def _q8_0_bound(values: np.ndarray) -> np.ndarray:
    blocks = np.abs(values).reshape(-1, _Q8_0_BLOCK)
    step = blocks.max(axis=1, keepdims=True) / 127
    # Half a step for the value, and a step off by half a unit of F16, 127 times at most.
    bound = (step / 2 + 127 * np.maximum(step * 2.0**-11, 2.0**-25)) * SLACK
    return np.broadcast_to(bound, blocks.shape).reshape(values.shape)
