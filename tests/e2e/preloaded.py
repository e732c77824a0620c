"""Runs of a command in a process that has imported its libraries: each is a fork, and seconds of importing are spared.

Killed at a random moment, such a run is killed in its own work, and a hundred of them take minutes.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Self

# Reads a list of arguments a line. Answers with the run's process, and at its end with its status.
_SERVER = """
import importlib, json, os, sys, traceback
module, messages, *libraries = sys.argv[1:]
for library in libraries:
    importlib.import_module(library)
command = importlib.import_module(module).main
for line in sys.stdin:
    if not (process := os.fork()):
        for stream, name in ((0, os.devnull), (1, os.devnull), (2, messages)):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), stream)
        status = 0
        try:
            command(json.loads(line))
        except SystemExit as end:
            status = end.code or 0
        except BaseException:
            traceback.print_exc()
            status = 1
        sys.stderr.flush()
        os._exit(status)
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


class Preloaded:
    """A process that imports ``libraries`` once. Runs of ``module``'s command follow each other."""

    def __init__(self, module: str, libraries: list[str], messages: Path, environment: dict[str, str]) -> None:
        self._messages = messages
        self._server = subprocess.Popen(
            [sys.executable, "-c", _SERVER, module, str(messages), *libraries],
            env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.communicate()

    def __enter__(self) -> Self:
        return self

    def start(self, arguments: list[str]) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(arguments) + "\n")
        self._server.stdin.flush()
        self._run = int(self._answer())

    def kill(self) -> None:
        # A run that has ended may have been waited for already. No other process can have its number so soon.
        with suppress(ProcessLookupError):
            os.kill(self._run, signal.SIGKILL)

    def end(self) -> tuple[int, str]:
        """The exit status of the run, or minus the signal that ended it, and what it wrote to stderr."""
        return int(self._answer()), self._messages.read_text(encoding="utf-8")

    def _answer(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline()
