"""Kernels in C++ that merge and quantise, with numpy's and libggml's bytes in a fraction of their CPU.

``kernels.cpp`` is compiled when the package is built (hatch_build.py), for three levels of x86-64, and loaded by
ctypes: no Python headers, so one library for every Python. Where there was no compiler there is no library, and the
plain way writes the same bytes.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from ctypes import c_double, c_int, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy.typing as npt

from converter.errors import ConverterError

FOLDER: Final = Path(__file__).parent
LIBRARY: Final = FOLDER / ("kernels" + {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so"))
VARIABLE: Final = "ADAPTER_TO_GGUF_KERNELS"
_LEVELS: Final = ("0", "1", "3", "4")


class _Array:
    """Where an array's numbers begin, null of None: one after the other, as np.ascontiguousarray has them."""

    @classmethod
    def from_param(cls, values: npt.NDArray[Any] | None) -> c_void_p:
        return c_void_p(None if values is None else values.ctypes.data)


class Kernels(NamedTuple):
    """Those of one level; kernels.cpp says what each takes."""

    level: int
    merge: Callable[..., int]
    sums: Callable[..., int]
    quantise: Callable[..., int]
    quantise_sum: Callable[..., int]


_SIGNATURES: Final[dict[str, list[Any]]] = {
    "merge": [c_int, c_int, _Array, _Array, _Array, c_size_t, c_size_t, c_size_t, c_double, _Array],
    "sums": [c_int, _Array, _Array, c_size_t, c_double, _Array, _Array],
    "quantise": [c_int, _Array, c_size_t, _Array, c_int, _Array, _Array],
    "quantise_sum": [
        c_int, c_int, _Array, _Array, c_size_t, c_double, _Array, c_int, _Array, c_size_t, _Array, _Array,
    ],
}  # fmt: skip


@cache
def kernels() -> Kernels | None:
    """None where there is no library, or ADAPTER_TO_GGUF_KERNELS is 0; 1, 3 and 4 are levels not to go beyond.

    Raises ConverterError where it is something else.
    """
    most = os.environ.get(VARIABLE) or _LEVELS[-1]
    if most not in _LEVELS:
        raise ConverterError(f"{VARIABLE} is {most!r}; wanted {', '.join(_LEVELS)}, or nothing")
    library = None if most == "0" else _library()
    return of_level(min(int(most), library.level())) if library else None


def of_level(level: int) -> Kernels:
    """Raises AttributeError where the library hasn't got it. A processor without the level ends the process."""
    library = _library()
    found = {name: getattr(library, f"{name}_{level}") for name in _SIGNATURES}
    for name, function in found.items():
        function.argtypes = _SIGNATURES[name]
    return Kernels(level, **found)


def made_of() -> str | None:
    """The digest of the sources that the library was made of; None where there is none."""
    library = _library()
    return (ctypes.c_char * 64).in_dll(library, "made_of").raw.decode() if library else None


@cache
def _library() -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(LIBRARY))
    except OSError:
        return None
