"""How large deltas are: ||scaling * B @ A|| of each LoRA pair, without the product itself."""

from math import isnan, sqrt

import numpy as np
import numpy.typing as npt

from converter.derive.adapter import LoraPair
from converter.read.stored import StoredTensor
from converter.values.numbers import is_readable
from converter.values.rows import n_rows, read_rows

_BLOCK_VALUES = 1 << 20


def delta_norm(pair: LoraPair) -> float | None:
    """The Frobenius norm of a pair's delta, NaN where a factor isn't finite; None where it has no product.

    ||B A||^2 = trace((B^T B)(A A^T)), r x r each, whatever the width of the layer. Of fused experts nothing is told.
    """
    a, b = pair.a.tensor, pair.b.tensor
    if pair.n_experts > 1 or not pair.is_well_shaped or not (is_readable(a) and is_readable(b)):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        square = float((_gram(b) * _outer(a)).sum())
    return abs(pair.scaling) * (square if isnan(square) else sqrt(max(square, 0.0)))


def _gram(b: StoredTensor) -> npt.NDArray[np.float64]:
    """B^T B of lora_B, (r, r)."""
    rank = b.shape[1]
    total, step = np.zeros((rank, rank)), max(1, _BLOCK_VALUES // rank)
    for begin in range(0, n_rows(b), step):
        rows = read_rows(b, begin, min(begin + step, n_rows(b))).astype(np.float64)
        total += rows.T @ rows
    return total


def _outer(a: StoredTensor) -> npt.NDArray[np.float64]:
    """A A^T of lora_A, (r, r); its rows are as long as a layer is wide, and as few as the rank."""
    rows = read_rows(a, 0, n_rows(a)).astype(np.float64)
    return np.asarray(rows @ rows.T)
