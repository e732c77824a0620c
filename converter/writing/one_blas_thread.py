"""BLAS with one thread while anything is written, however many threads write.

A merge is bound by memory, not by arithmetic: a second BLAS thread only spins, for 4 times the CPU. The limit is the
process's own, so the first writer sets it and the last one lifts it: two that each did both could leave it behind.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from threadpoolctl import threadpool_limits


class _Limit:
    def __init__(self) -> None:
        self._lock = Lock()
        self._n_writers = 0
        self._limits: threadpool_limits | None = None

    def enter(self) -> None:
        from threadpoolctl import threadpool_limits

        with self._lock:
            if not self._n_writers:
                self._limits = threadpool_limits(1, "blas")
            self._n_writers += 1

    def leave(self) -> None:
        with self._lock:
            self._n_writers -= 1
            if not self._n_writers and self._limits:
                self._limits.restore_original_limits()


_LIMIT: Final = _Limit()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold the limit."""
    _LIMIT.enter()
    try:
        yield
    finally:
        _LIMIT.leave()
