"""What numba compiles (the extra ``fast``), with the plain way's bytes, and where it pays.

numpy takes a pass over memory for every step of a merge, and libggml a number after the other: ``kernels.py`` and
``lockstep/`` take one pass, and many numbers.
"""

import platform
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from converter.evaluation.encode import Quantiser
from converter.evaluation.rounded_sum import Merging

# Of merged weights, and of quantised ones by their type: as many as take numpy or libggml as long as it takes to import
# numba and load what it keeps (0.4 s of CPU). The first time on a machine compiling takes 1 to 3 s for each type.
WORTH_MERGING: Final = 1 << 24
WORTH_QUANTISING: Final = {"Q4_K": 1 << 22, "Q5_K": 1 << 22, "Q6_K": 1 << 23, "Q5_0": 1 << 24, "Q8_0": 1 << 24}
_WHERE_NOTHING_IS_KEPT: Final = 16  # times as many: it compiles every time
# Elsewhere a compiler may have fused libggml's multiplications and additions.
_MACHINES: Final = frozenset({"x86_64", "amd64"})


class Compiled(NamedTuple):
    """What is worth it: a merge, and each type that is quantised without an imatrix."""

    merging: Merging | None = None
    quantisers: Mapping[str, Quantiser] = MappingProxyType({})


NOTHING: Final = Compiled()


def compiled(n_merged: int, n_quantised: Mapping[str, int]) -> Compiled:
    """Where numba is installed: what is worth compiling for so many merged numbers, and quantised ones of each type."""
    is_known = platform.machine().lower() in _MACHINES
    types = [name for name, n in WORTH_QUANTISING.items() if is_known and n_quantised.get(name, 0) >= n]
    if not types and n_merged < WORTH_MERGING:
        return NOTHING
    try:
        from numba import config

        if config.DISABLE_JIT:
            return NOTHING
        from converter.evaluation.kernels import IS_KEPT, merged, rounded_sum, sums_of
        from converter.evaluation.lockstep import quantised
    except ImportError:  # not installed, or not for this numpy
        return NOTHING
    times = 1 if IS_KEPT else _WHERE_NOTHING_IS_KEPT
    merging = Merging(rounded_sum, merged, sums_of) if n_merged >= times * WORTH_MERGING else None
    worth = [name for name in types if n_quantised[name] >= times * WORTH_QUANTISING[name]]
    return Compiled(merging, dict.fromkeys(worth, quantised))
