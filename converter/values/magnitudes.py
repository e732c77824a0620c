"""Whether DoRA's magnitudes follow the row norms of a base, as they do where they were trained on it."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from converter.derive.adapter import LoraPair
from converter.derive.base_model import BaseModel
from converter.derive.checkpoint_parts import disordered
from converter.values.numbers import is_readable
from converter.values.orders import indices
from converter.values.rows import read_columns, read_rows

_N_MODULES: Final = 16  # spread over the model; their median doesn't move by more of them
_N_ROWS: Final = 1024
# Of the logarithms of the norms. Rows of one length, as in a small random matrix, tell no base from another.
_LEAST_SPREAD: Final = 0.05

Vector = npt.NDArray[np.float64]


def agreement(pairs: Sequence[LoraPair], base: BaseModel) -> float | None:
    """The median, over modules, of the correlation between the logarithms of magnitudes and of row norms.

    None where no module can tell. An embedding's magnitudes belong to its columns and are no part of it.
    """
    sample = pairs[:: max(1, len(pairs) // _N_MODULES)]
    found = [correlation for pair in sample for correlation in _correlation(pair, base)]
    return median(found) if found else None


def _correlation(pair: LoraPair, base: BaseModel) -> Iterator[float]:
    if disordered(base, pair.module):
        return
    norms, magnitudes = _norms(pair, base), _magnitudes(pair)
    if norms is None or magnitudes is None or len(magnitudes) != pair.shape[0]:
        return
    place = base.place(pair.module)
    if base.format == "gguf" and place:
        magnitudes = magnitudes[indices(base.orders(place).rows, len(magnitudes))]
    magnitudes = magnitudes[: len(norms)]
    usable = (norms > 0) & (magnitudes > 0) & np.isfinite(magnitudes)
    x, y = np.log(magnitudes[usable]), np.log(norms[usable])
    if len(x) > 1 and y.std() >= _LEAST_SPREAD and x.std() > 0:
        yield float(np.corrcoef(x, y)[0, 1])


def _magnitudes(pair: LoraPair) -> Vector | None:
    if pair.magnitude is None or not is_readable(pair.magnitude.tensor):
        return None
    tensor = pair.magnitude.tensor
    return np.abs(read_rows(tensor, 0, tensor.shape[0]).astype(np.float64)).reshape(-1)


def _norms(pair: LoraPair, base: BaseModel) -> Vector | None:
    """The norms of the first rows of a module's weight, in the base's order."""
    stored, place = base.weight(pair.module), base.place(pair.module)
    if stored is None or place is None or len(stored.shape) != 2 or pair.shape != base.shape(pair.module):
        return None
    n_rows = min(_N_ROWS, pair.shape[0])
    transposed = base.format == "huggingface" and place.transposed
    rows: npt.NDArray[Any] = read_columns(stored, 0, n_rows) if transposed else read_rows(stored, 0, n_rows)
    norms: Vector = np.linalg.norm(rows.astype(np.float64), axis=1)
    return norms
