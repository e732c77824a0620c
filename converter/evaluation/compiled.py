"""What is merged and quantised by compiled kernels (native/), with the plain way's bytes.

numpy takes a pass over memory for every step of a merge, and libggml a number after the other; the kernels take one
pass, and many numbers.
"""

import platform
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

from converter.evaluation.native import kernels
from converter.evaluation.native.merging import merging
from converter.evaluation.native.quantising import TYPES, quantised, quantised_rows, quantised_sum
from converter.evaluation.rounded_sum import Merging, Quantising

# Elsewhere a compiler may have fused libggml's multiplications and additions.
_MACHINES: Final = frozenset({"x86_64", "amd64"})


class Compiled(NamedTuple):
    """A merge, and of each type what quantises it without an imatrix."""

    merging: Merging | None = None
    quantising: Mapping[str, Quantising] = MappingProxyType({})


NOTHING: Final = Compiled()


def compiled() -> Compiled:
    """What there is on this machine. Raises ConverterError as ``kernels`` does."""
    found = kernels()
    if found is None:
        return NOTHING
    by_these = Quantising(partial(quantised, found), partial(quantised_sum, found), partial(quantised_rows, found))
    types = TYPES if platform.machine().lower() in _MACHINES else ()
    return Compiled(merging(found), dict.fromkeys(types, by_these))
