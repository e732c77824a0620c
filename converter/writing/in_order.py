"""What tasks make, in their order, while several of them run: so reading, arithmetic and writing overlap.

Threads, because numpy, BLAS, the compiled kernel and files all let go of Python's lock while they work.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

import numpy as np

T = TypeVar("T")

_MOST: Final = 4  # more would wait for memory and disk
_AHEAD: Final = 2  # results for each thread that may wait to be taken: memory stays flat


def n_threads() -> int:
    """As many as there are processors for this process, up to what they are good for."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(n, _MOST)


def in_order(tasks: Iterable[Callable[[], T]], n: int) -> Generator[T]:
    """Yield what each task returns. The first one that raises ends it all, with what it raised.

    ``tasks`` is drawn from in this thread, a few ahead of what was taken.
    """
    if n == 1:
        yield from map(_quietly, tasks)
        return
    waiting: deque[Future[T]] = deque()
    executor = ThreadPoolExecutor(n, "writing")
    try:
        for task in tasks:
            waiting.append(executor.submit(_quietly, task))
            if len(waiting) > _AHEAD * n:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _quietly(task: Callable[[], T]) -> T:
    # What isn't finite is refused in words of ours (NM010 and its like). A thread begins without the caller's errstate.
    with np.errstate(all="ignore"):
        return task()
