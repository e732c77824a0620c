"""Work that waits for a network, much of it at once: its loop, and how it ends."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from threading import Thread
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of some work, done by a loop in a thread of its own.

    This thread may have a loop already, as in a notebook; and Ctrl-C or SIGTERM, which end it wherever it is, must end
    the work's tasks in order.
    """
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    done = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return done.result()
    finally:
        done.cancel()
        asyncio.run_coroutine_threadsafe(_others(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _others() -> None:
    """Wait for all other tasks of this loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)


async def every(work: Iterable[Coroutine[Any, Any, Result]]) -> Sequence[Result]:
    """The results of all; where one fails, its error, and the others are ended."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
