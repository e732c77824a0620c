"""How numba compiles here: strict IEEE arithmetic, and what is called from Python is kept on disk.

Importing this module imports numba (the extra ``fast``), for 0.2 s of CPU.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., object])

_OPTIONS: Final = {"nogil": True, "error_model": "numpy"}  # error_model: a division by zero gives what IEEE says


def inlined(function: Function) -> Function:
    """Of a few operations, for compiled callers."""
    made: Function = njit(inline="always")(function)
    return made


def jitted(function: Function) -> Function:
    """For compiled callers."""
    made: Function = njit(**_OPTIONS)(function)
    return made


def kept(function: Function) -> Function:
    """For Python. The machine code is kept beside the module, else in the user's cache, else compiled every time.

    numba asks for it by the module's own text. That of this module, and of others whose functions are called, has to
    be in it as a digest: _MADE_OF, which tests/unit/test_kept_kernels.py holds to it.
    """
    dispatcher = njit(**_OPTIONS)(function)
    with suppress(RuntimeError):  # nowhere to write
        dispatcher.enable_caching()
    made: Function = dispatcher
    return made


def is_kept(function: Callable[..., object]) -> bool:
    """Whether there was somewhere to keep what ``kept`` made."""
    stats: Any = getattr(function, "stats", None)
    return bool(stats and stats.cache_path)
