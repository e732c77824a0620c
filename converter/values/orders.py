"""Orders of rows and columns as numbers, and back."""

import numpy as np
import numpy.typing as npt

from converter.orders import Order, Run

Indices = npt.NDArray[np.int64]


def indices(order: Order, n: int) -> Indices:
    """The Hugging Face row (or column) behind each one of GGUF's, of the ``n`` that the Hugging Face weight has."""
    if not order.runs:
        return np.arange(n)
    return np.concatenate([_indices(run) for run in order.runs])


def _indices(run: Run) -> Indices:
    found = np.array([run.begin])
    for count, stride in run.loops:
        found = (found[:, None] + np.arange(count) * stride).reshape(-1)
    return found


def inverse(order: Order, n: int) -> Indices:
    """The GGUF row (or column) behind each one of Hugging Face's: of an order that takes all ``n``."""
    return np.argsort(indices(order, n))
