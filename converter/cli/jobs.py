"""``--jobs N``: adapters are judged by N processes, and what comes of each is taken in the order of the adapters."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, Final, TypeVar

from converter.errors import ConverterError

S = TypeVar("S")
T = TypeVar("T")

_AHEAD: Final = 8  # adapters for each process that are judged before they are asked for: memory stays flat


def side_by_side(judge: Callable[[S], T], things: Iterable[S], n_jobs: int) -> Iterator[T]:
    """What ``judge`` makes of each thing, in their order. It is pickled once for each process.

    Raises ConverterError where a process is ended from outside.
    """
    waiting: deque[Future[T]] = deque()
    # Spawned: a fork of a process with threads can wait for ever for a lock that one of them had.
    executor = ProcessPoolExecutor(n_jobs, get_context("spawn"), initializer=_begin, initargs=(judge,))
    try:
        for thing in things:
            waiting.append(executor.submit(_asked, thing))
            if len(waiting) > _AHEAD * n_jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise ConverterError("one of the processes of --jobs was ended from outside; try it with fewer") from error
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


_judge: Callable[[Any], Any]


def _begin(judge: Callable[[Any], Any]) -> None:
    """In each process: Ctrl-C is the parent's to hear, which ends them. Where the parent was killed they end too."""
    global _judge  # noqa: PLW0603  a process of a pool has no other place
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _judge = judge
    Thread(target=_end_with, args=[parent_process()], daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _asked(thing: Any) -> Any:
    return _judge(thing)
