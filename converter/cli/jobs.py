"""``--jobs N``: adapters are judged by N processes; what comes of each is taken in the order in which they were given."""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

_AHEAD: Final = 8  # adapters for each process that are judged before they are asked for: memory stays flat


def side_by_side(judge: Callable[[Path], T], paths: Iterable[Path], n_jobs: int) -> Iterator[T]:
    """What ``judge`` makes of each path, in their order. It is pickled once for each process."""
    waiting: deque[Future[T]] = deque()
    executor = ProcessPoolExecutor(n_jobs, initializer=_begin, initargs=(judge,))
    try:
        for path in paths:
            waiting.append(executor.submit(_asked, path))
            if len(waiting) > _AHEAD * n_jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_judge: Callable[[Path], object]


def _begin(judge: Callable[[Path], object]) -> None:
    """In each process: Ctrl-C is the parent's to hear, which ends them."""
    global _judge  # noqa: PLW0603  a process of a pool has no other place
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _judge = judge


def _asked(path: Path) -> object:
    return _judge(path)
