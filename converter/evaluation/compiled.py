"""Who rounds a merge in one pass over memory, where that pays.

numpy takes a pass for every step. ``kernels.py`` takes one for all, with the same bytes, where numba is installed (the
extra ``fast``).
"""

from typing import Final

from converter.evaluation.rounded_sum import RoundedSum

# Importing and compiling take 1 s of CPU, as much as numpy takes over the kernel for so many.
_WORTH_COMPILING: Final = 1 << 27


def compiled(n_elements: int) -> RoundedSum | None:
    """The compiled loop, where numba is installed and ``n_elements`` in all are worth compiling it."""
    if n_elements < _WORTH_COMPILING:
        return None
    try:
        from numba import config

        from converter.evaluation.kernels import rounded_sum
    except ImportError:  # not installed, or not for this numpy
        return None
    return None if config.DISABLE_JIT else rounded_sum
