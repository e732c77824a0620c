"""Whether the factors that PiSSA or OLoRA began with came from a base: both are made of the base's own directions.

pissa_init and olora_init in peft/tuners/lora/layer.py: with the base's weight W, PiSSA's scaling * B @ A is U @ U^T @ W
for U the directions of B's columns, and OLoRA's A is B^T @ W, for B's columns are orthonormal.
"""

import numpy as np

from converter.derive.adapter import LoraPair
from converter.derive.base_model import BaseModel
from converter.orders import Orders
from converter.values.numbers import is_readable
from converter.values.orders import indices
from converter.values.rows import read_rows

_N_ROWS = 1024


def off_from_base(name: str, pair: LoraPair, base: BaseModel) -> float | None:
    """||B^T W - wanted|| / ||wanted||: 0 for the base's own factors, 1 and more for others. None where it can't say."""
    place, weight = base.place(pair.module), base.weight(pair.module)
    is_stored_as_it_is = base.format == "gguf" or not (place and place.transposed)
    if place is None or weight is None or pair.is_embedding or not place.is_whole_tensor or not is_stored_as_it_is:
        return None
    if not (name.startswith("pissa") or name == "olora") or weight.shape != pair.shape or not _are_readable(pair):
        return None
    a, b = (read_rows(factor.tensor, 0, factor.tensor.shape[0]).astype(np.float64) for factor in (pair.a, pair.b))
    orders = base.orders(place) if base.format == "gguf" else Orders()
    rows, a = b[indices(orders.rows, len(b))], a[:, indices(orders.columns, a.shape[1])]
    found = np.zeros_like(a)
    for begin in range(0, len(rows), _N_ROWS):
        block = rows[begin : begin + _N_ROWS]
        found += block.T @ read_rows(weight, begin, begin + len(block)).astype(np.float64)
    wanted = (b.T @ b) @ a * (1.0 if name == "olora" else pair.scaling)
    norm = float(np.linalg.norm(wanted))
    return float(np.linalg.norm(found - wanted)) / norm if norm > 0 else None


def _are_readable(pair: LoraPair) -> bool:
    return is_readable(pair.a.tensor) and is_readable(pair.b.tensor)
