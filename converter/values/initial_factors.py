"""Whether the factors that PiSSA or OLoRA began with came from a base: both are made of the base's own directions.

pissa_init and olora_init in peft/tuners/lora/layer.py: with the base's weight W, PiSSA's scaling * B @ A is U @ U^T @ W
for U the directions of B's columns, and OLoRA's A is B^T @ W, for B's columns are orthonormal.
"""

from collections.abc import Sequence
from math import isfinite, prod
from statistics import median

import numpy as np

from converter.derive.adapter import LoraPair
from converter.derive.base_model import BaseModel
from converter.derive.checkpoint_parts import disordered
from converter.orders import Orders
from converter.read.stored import StoredTensor
from converter.values.numbers import is_readable
from converter.values.orders import indices
from converter.values.rows import read_rows

_N_ELEMENTS = 1 << 17  # 1 MB of float64 fits a core's cache
_N_MODULES = 8  # spread over the model


def off_from_parts(pairs: Sequence[LoraPair], base: BaseModel) -> float | None:
    """The median of ``off_from_base`` over some of the smallest modules, as if PiSSA's; None where none can say."""
    usual = [pair for pair in pairs if pair.is_well_shaped and not pair.is_embedding]
    smallest = min((prod(pair.shape) for pair in usual), default=0)
    of_one_size = [pair for pair in usual if prod(pair.shape) == smallest]
    sample = of_one_size[:: max(1, len(of_one_size) // _N_MODULES)]
    found = [off for pair in sample if (off := off_from_base("pissa", pair, base)) is not None]
    return median(found) if found else None


def off_from_base(name: str, pair: LoraPair, base: BaseModel) -> float | None:
    """||B^T W - wanted|| / ||wanted||: 0 for the base's own factors, 1 and more for others. None where it can't say."""
    place, weight = base.place(pair.module), base.weight(pair.module)
    is_gguf = base.format == "gguf"
    is_stored_as_it_is = is_gguf or not (place and place.transposed)
    if place is None or weight is None or not place.is_whole_tensor or not is_stored_as_it_is:
        return None
    if pair.is_embedding or len(weight.shape) > 2:  # PEFT begins no LoRA on experts so
        return None
    if not (name.startswith("pissa") or name == "olora") or weight.shape != pair.shape or not _are_readable(pair):
        return None
    if disordered(base, pair.module):
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # huge factors are another rule's
        return _off(name, pair, weight, base.orders(place) if is_gguf else Orders())


def _off(name: str, pair: LoraPair, weight: StoredTensor, orders: Orders) -> float | None:
    a, b = (read_rows(factor.tensor, 0, factor.tensor.shape[0]).astype(np.float64) for factor in (pair.a, pair.b))
    rows, a = b[indices(orders.rows, len(b))], a[:, indices(orders.columns, a.shape[1])]
    found = np.zeros_like(a)
    n_rows = max(1, _N_ELEMENTS // a.shape[1])
    for begin in range(0, len(rows), n_rows):
        block = rows[begin : begin + n_rows]
        found += block.T @ read_rows(weight, begin, begin + len(block)).astype(np.float64)
    wanted = (b.T @ b) @ a * (1.0 if name == "olora" else pair.scaling)
    norm, off = float(np.linalg.norm(wanted)), float(np.linalg.norm(found - wanted))
    return off / norm if norm > 0 and isfinite(off) else None


def _are_readable(pair: LoraPair) -> bool:
    return is_readable(pair.a.tensor) and is_readable(pair.b.tensor)
