"""What rows of a weight are multiplied by in GGUF: the numbers as transformers' own config has them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from converter.architectures import Place
from converter.verification.orders import Dims
from converter.verification.reference import Reference

Array = npt.NDArray[np.float64]


class Factors(NamedTuple):
    """Of each row the numbers that it is multiplied by one after the other, (n_rows, n_factors)."""

    of_rows: Array

    def times(self, values: Array, rows: slice, *, rounded: type[np.floating] | None = None) -> Array:
        """Some rows multiplied; each product ``rounded`` to a type, as llama.cpp's converter does a base's weights."""
        for factor in self.of_rows[rows].T:
            if rounded is None:
                values = values * factor[:, None]
            else:
                values = (values.astype(np.float32) * factor.astype(np.float32)[:, None]).astype(rounded)
        return values.astype(np.float64)


def factors_of(place: Place, dims: Dims, reference: Reference) -> Factors | None:
    """Those of a module; None where it is multiplied by nothing."""
    if not place.factors:
        return None
    n_left, parts = reference.shape(f"{place.module}.weight")[0], []
    for at, (dim, *fields) in enumerate(place.factors, 1):
        n = n_left if at == len(place.factors) else dims[dim]
        n_left -= n
        parts.append(np.tile([reference.setting(field) for field in fields], (n, 1)))
    return Factors(np.concatenate(parts))
