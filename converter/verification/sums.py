"""Sums over a tensor that is compared block by block: how far off it is, and how much of the adapter's delta it holds.

The share of a delta D that is kept is <found - base, D> / ||D||^2: 1 where all of it is there, 0 where nothing is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np

from converter.verification.rounding import has_bound, rounding_bound
from converter.verification.tensor_proof import TensorCheck

# Conversion stops below a half as well. Correct rounding of real adapters of 40 steps keeps 0.68 to 1.00 of each
# tensor's delta in BF16 and 0.77 to 1.02 in Q8_0; a dropped module keeps 0, and one added twice 2.
KEPT_AT_LEAST: Final = 0.5
KEPT_AT_MOST: Final = 1.5

# The largest relative error of a product of rounded factors, by their type; else K-quants' own rounding.
Tolerance = Mapping[str, float]
_COARSEST: Final = 0.3


@dataclass(slots=True)
class RoundedSums:
    """Of a weight stored in ``type_name``: each number must be the one wanted, rounded ``n_roundings`` times.

    ``is_replaced``: the adapter brings the weight itself, whole. Of such a one only what differs by more than rounding
    is to be kept: the rest may be the very numbers that the base was quantised from.
    """

    type_name: str
    n_roundings: float = 1.0
    is_replaced: bool = False
    worst: float = 0.0
    held: float = 0.0
    norm2: float = 0.0

    def add(self, stored: np.ndarray, served: np.ndarray, base: np.ndarray | None) -> None:
        """Account for some rows, (n_rows, n_columns) or (n_rows,) each; without ``base`` there is no delta to keep."""
        bound = rounding_bound(served, self.type_name) * self.n_roundings if has_bound(self.type_name) else None
        if bound is not None:
            self.worst = float(np.maximum(self.worst, (np.abs(stored - served) / bound).max()))  # keeps NaN
        if base is not None:
            delta = served - base
            if self.is_replaced and bound is not None:
                delta *= np.abs(delta) > bound
            self.held += float(((stored - base) * delta).sum())
            self.norm2 += float((delta**2).sum())

    def judged(self, tensor: str, of: str, *, touched: bool) -> TensorCheck:
        """The verdict on ``tensor``, which serves ``of``."""
        error = self.worst if has_bound(self.type_name) else None
        kept = self.held / self.norm2 if self.norm2 > 0 else None
        return TensorCheck(tensor, "numbers", self.type_name, touched, error, kept, self._fault(of, error, kept))

    def _fault(self, of: str, error: float | None, kept: float | None) -> str | None:
        if error is not None and not error <= 1:  # NaN is a fault
            return f"is off from PEFT's {of} by {error:.4g} times what {self.type_name} allows"
        if kept is not None and not KEPT_AT_LEAST <= kept <= KEPT_AT_MOST:
            return f"holds {kept:.3g} of the delta of {of} in {self.type_name}, wanted 1"
        return None


@dataclass(slots=True)
class ProductSums:
    """Of a product of rounded factors, which is judged by its relative error: its numbers may cancel in part."""

    error2: float = 0.0
    norm2: float = 0.0
    held: float = 0.0

    def add(self, found: np.ndarray, wanted: np.ndarray) -> None:
        """Account for some rows."""
        self.error2 += float(((found - wanted) ** 2).sum())
        self.norm2 += float((wanted**2).sum())
        self.held += float((found * wanted).sum())

    def judged(self, tensor: str, type_name: str, tolerance: Tolerance) -> TensorCheck:
        """The verdict on what was multiplied; ``type_name`` is the coarser type of the factors."""
        if self.norm2 == 0:  # nothing is wanted
            fault = "is not 0, as PEFT's is" if self.error2 else None
            return TensorCheck(tensor, "numbers", type_name, touched=True, fault=fault)
        relative = sqrt(self.error2 / self.norm2)
        error = relative / tolerance.get(type_name, _COARSEST)
        fault = None if error <= 1 else f"differs from PEFT's by {relative:.3g} of its size"  # NaN is a fault
        return TensorCheck(tensor, "numbers", type_name, True, error, self.held / self.norm2, fault)
