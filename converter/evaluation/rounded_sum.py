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


# Of base, product and scaling, in the type: base + scaling * product, rounded once. None: the plain way has to look.
RoundedSum = Callable[[Array, Doubles, float, GgmlType], Rounded | None]


class Merging(NamedTuple):
    """In one pass over memory each: a sum that is rounded; and of the same three and what was stored for it, Sums."""

    rounded_sum: RoundedSum
    sums_of: Callable[[Array, Doubles, float, Array], Sums]
