"""A call that lets no signal in ends in time, with one line; and one that ends by itself is left alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from converter.fleet.deadline import ends_within

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="nothing is killed there")
# PyDLL keeps the interpreter's lock while it calls, as Ray does.
_PROGRAM = """
import ctypes, sys
from converter.fleet.deadline import ends_within
with ends_within(float(sys.argv[1]), "adapter-fleet: it takes too long", "adapter-fleet: waiting", 0.5):
    ctypes.PyDLL(None).sleep(int(sys.argv[2]))
print("done")
"""
TOLD = "adapter-fleet: waiting\nadapter-fleet: it takes too long\n"


def run(seconds: float, sleeps: int) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", _PROGRAM, str(seconds), str(sleeps)]
    root = Path(__file__).parents[3]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=60, check=False)


def test_what_holds_the_interpreter_is_ended() -> None:
    begin = time.monotonic()
    ran = run(1, 50)
    assert (ran.returncode, ran.stdout, ran.stderr) == (-signal.SIGKILL, "", TOLD)
    assert time.monotonic() - begin < 30


def test_what_ends_by_itself_is_left_alone() -> None:
    ran = run(30, 1)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "done\n", "adapter-fleet: waiting\n")


def test_on_windows_nothing_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe can't be waited for there (select)."""
    monkeypatch.delattr(subprocess, "Popen")
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        with ends_within(0.0, "it takes too long", "waiting"):
            pass
    with pytest.raises(AttributeError, match="Popen"), ends_within(0.0, "it takes too long", "waiting"):
        pass
