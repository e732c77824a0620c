"""What is remembered of files while one adapter is judged: a dozen rules ask for the same numbers.

Adapters of experts have 70,000 tensors of a few kB: opening the file for each of them, for each rule, would take most
of the time. Outside of `remembering` nothing is remembered, so that a file that changes is read again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from converter.read.files import read_into, status_of
from converter.read.stored import StoredTensor

_SMALL_NBYTES: Final = 1 << 15
_PIECE_NBYTES: Final = 1 << 19


@dataclass(slots=True)
class _Memory:
    norms: dict[StoredTensor, float] = field(default_factory=dict)
    sizes: dict[Path, int] = field(default_factory=dict)
    # A piece of a file, from ``begin`` on: small tensors mostly lie one behind the other.
    path: Path | None = None
    begin: int = 0
    piece: memoryview = field(default_factory=lambda: memoryview(b""))


_memory: Final[ContextVar[_Memory | None]] = ContextVar("memory", default=None)


@contextmanager
def remembering() -> Iterator[None]:
    """What is read of files is remembered until the end, in this thread; numpy says nothing of NaN, which rules do."""
    token = _memory.set(_Memory())
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        _memory.reset(token)


def norms() -> dict[StoredTensor, float] | None:
    """The norms that are known already; None where nothing is remembered."""
    memory = _memory.get()
    return memory.norms if memory else None


def size(path: Path) -> int:
    """The bytes of a file. Raises ConverterError where it can't be looked at."""
    memory = _memory.get()
    if memory is None:
        return status_of(path).st_size
    if path not in memory.sizes:
        memory.sizes[path] = status_of(path).st_size
    return memory.sizes[path]


def small(tensor: StoredTensor) -> memoryview | None:
    """The bytes of a small tensor, read together with those behind it; None of a large one, or outside of a memory.

    Raises ConverterError where the file can't be read, or ends early.
    """
    memory = _memory.get()
    if memory is None or tensor.nbytes > _SMALL_NBYTES:
        return None
    begin = tensor.offset - memory.begin
    if memory.path != tensor.path or begin < 0 or begin + tensor.nbytes > len(memory.piece):
        nbytes = max(tensor.nbytes, min(_PIECE_NBYTES, size(tensor.path) - tensor.offset))
        memory.path, memory.begin, memory.piece, begin = tensor.path, tensor.offset, memoryview(bytearray(nbytes)), 0
        read_into(tensor.path, tensor.offset, memory.piece)
    return memory.piece[begin : begin + tensor.nbytes]
