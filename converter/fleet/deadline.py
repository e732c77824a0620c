"""A deadline for what can't be stopped: a call into foreign code that holds the interpreter lets no signal in.

Ray's ``init`` is one: where the raylet doesn't answer it waits for ever (CoreWorker, ray/_private/worker.py of 2.60.0).
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_WATCH: Final = """
import os, select, signal, sys
def ended(seconds):
    return select.select([0], [], [], float(seconds))[0]
def say(words):
    os.write(2, words.encode() + bytes([10]))
pid, soon, late, notice, message = sys.argv[1:]
if not ended(soon):
    say(notice)
    if not ended(late):
        say(message)
        os.kill(int(pid), signal.SIGKILL)
"""


@contextmanager
def ends_within(seconds: float, message: str, notice: str, notice_after: float = 15.0) -> Iterator[None]:
    """Kill this process, and print ``message`` on stderr, unless the block ends in time. On Windows there is no end.

    ``notice`` is printed where it takes longer than ``notice_after``.

    Whoever kills is a process of its own, which ends with the block, or with this process.
    """
    if os.name != "posix":
        yield
        return
    first = min(notice_after, seconds)
    times = (str(os.getpid()), str(first), str(seconds - first))
    command = [sys.executable, "-I", "-S", "-c", _WATCH, *times, notice, message]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as watch:  # closing its input ends it
        assert watch.stdin  # noqa: S101  as asked for
        with watch.stdin:
            yield
