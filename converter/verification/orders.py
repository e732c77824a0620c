"""Which rows and columns of Hugging Face's weight a GGUF's are: an opinion of its own on what the tables say.

One that conversion shared would prove its own mistake: here arrays are turned round and joined, there loops are
counted.
"""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from converter.architectures import Place
from converter.verification.peft_layers import Rows

Dims = Mapping[str, int]


def rows_of_huggingface(place: Place, dims: Dims, shape: Sequence[int], rows: slice) -> Rows:
    """The rows of the Hugging Face weight that the GGUF's tensor of this ``shape`` keeps as ``rows``.

    Rows of all experts are one below the other.
    """
    if not place.rows:
        return rows
    row = np.arange(rows.start, rows.stop)
    of_huggingface = _gathered(place.rows, dims[place.shape[-2:][0]], dims)
    n_huggingface, n_gguf = dims[place.shape[-2:][0]], shape[-2:][0]
    return np.asarray(row // n_gguf * n_huggingface + of_huggingface[row % n_gguf])


def columns_of_huggingface(place: Place, dims: Dims) -> Rows:
    """The columns of the Hugging Face weight in the order in which the GGUF keeps them."""
    return _gathered(place.columns, dims[place.shape[-1]], dims) if place.columns else slice(None)


def biases_of_huggingface(place: Place, dims: Dims) -> Rows:
    """The biases of one expert in the order in which the GGUF keeps them: that of its rows."""
    return _gathered(place.rows, dims[place.shape[-2]], dims) if place.rows else slice(None)


def rows_of_heads(place: Place, dims: Dims) -> npt.NDArray[np.int64]:
    """The rows of the Hugging Face weight that a stack of heads has, one head after the other."""
    return _gathered(place.rows, dims[place.shape[0]], dims)


def n_rows_in_gguf(place: Place, dims: Dims) -> int:
    """How many of a module's rows its GGUF tensor holds."""
    n = dims[place.shape[-2:][0]]
    return len(_gathered(place.rows, n, dims)) if place.rows else n


def _gathered(text: str, n: int, dims: Dims) -> npt.NDArray[np.int64]:
    """The numbers below ``n`` in the order that a table writes as ``text`` (converter/orders.py)."""
    parts, begin = [], 0
    for section in text.split("|"):
        before, _, behind = section.partition("->")
        sizes = {axis: 0 if axis == "_" else dims[axis] if axis in dims else int(axis) for axis in before.split()}
        rest = (n - begin) // prod(size for size in sizes.values() if size)
        shape = [size or rest for size in sizes.values()]
        numbers = np.arange(begin, begin + prod(shape)).reshape(shape)
        for part in (behind or before).split("&"):
            kept = [word.partition("=") for word in part.split()]
            turned = numbers.transpose([[*sizes].index(axis) for axis, _, _ in kept])
            parts.append(turned[tuple(_taken(at, dims) for _, _, at in kept)].reshape(-1))
        begin += prod(shape)
    return np.concatenate(parts)


def _taken(places: str, dims: Dims) -> slice:
    """What is taken of an axis: all, one place (``1``) or a range (``2:4``, ``2:``)."""
    if not places:
        return slice(None)
    begin, colon, end = places.partition(":")
    first = _place_number(begin or "0", dims)
    return slice(first, (_place_number(end, dims) if end else None) if colon else first + 1)


def _place_number(word: str, dims: Dims) -> int:
    return dims[word] if word in dims else int(word)
