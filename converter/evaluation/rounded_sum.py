"""A block that is rounded, and what the rounding kept of its delta."""

from collections.abc import Callable
from typing import Final, NamedTuple

from converter.dtypes import GgmlType
from converter.evaluation.rows import Doubles
from converter.values.rows import Array

TYPES: Final = frozenset({"F32", "F16", "BF16"})


class Sums(NamedTuple):
    """Over numbers of a delta and the errors with which it was rounded into the weight."""

    norm2: float = 0.0
    error_dot_delta: float = 0.0
    error_norm2: float = 0.0

    @classmethod
    def of(cls, error: Doubles, delta: Doubles) -> "Sums":
        """Of one block."""
        error, delta = error.reshape(-1), delta.reshape(-1)
        return cls(float(delta @ delta), float(error @ delta), float(error @ error))


class Rounded(NamedTuple):
    """A block in its type, and the sums of its delta."""

    values: Array
    sums: Sums


class Quantising(NamedTuple):
    """Numbers of float32 to a block type. The last of all arguments is libggml, which proves it.

    ``merged`` is Merging's, by way of float32; ``rows`` is that of a base which stays as it is. None: the plain way has
    to look.
    """

    blocks: Callable[[Array, GgmlType, Callable[[Array], Array]], Array]
    merged: Callable[[Array, Doubles, Doubles, float, GgmlType, Callable[[Array], Array]], Rounded | None]
    rows: Callable[[Array, GgmlType, Callable[[Array], Array]], Rounded | None]


class Merging(NamedTuple):
    """``base`` + ``scaling`` * ``product``, rounded once, in one pass over memory. None: the plain way has to look.

    ``merged`` is that of two factors, ``sums_of`` tells the sums of base, product, scaling and what was stored.
    """

    rounded_sum: Callable[[Array, Doubles, float, GgmlType], Rounded | None]
    merged: Callable[[Array, Doubles, Doubles, float, GgmlType], Rounded | None]
    sums_of: Callable[[Array, Doubles, float, Array], Sums]
