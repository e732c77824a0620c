"""The bar of a run, on a terminal alone, and lines in a log: on stderr alone, and never in what the run says."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest

from converter.cli import training_progress
from converter.cli.training_progress import terminal_watch

PROGRAM: Final = """
from converter.cli.training_progress import terminal_watch
with terminal_watch() as watch:
    watch.says("before")
    watch.logged(0, {"eval_loss": 2.5})
    watch.begins(40)
    watch.logged(1, {"loss": 2.25, "learning_rate": 1e-4})
    watch.says("[red]between[/red]")
    watch.logged(20, {"loss": 1.125})
    watch.logged(20, {"eval_loss": 1.5})
    assert not watch.stops(20, 1.5)
watch.says("after")
"""
SAID: Final = ["before", "[red]between[/red]", "after"]
# A control sequence: ECMA-48, 5.4.
CONTROL: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def run(program: str = PROGRAM, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Stdout and stderr are pipes."""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )


def on_terminal(tmp_path: Path, *, stdout_too: bool, environment: Mapping[str, str] = {}) -> tuple[str, str]:
    """What a terminal got as stderr, or as both, and what went elsewhere as stdout."""
    import pty

    terminal, end = pty.openpty()
    with (tmp_path / "stdout").open("w+b") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdout=end if stdout_too else file,
            stderr=end,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment},
        )
        os.close(end)
        seen = _all_of(terminal)
        assert process.wait() == 0, seen
        file.seek(0)
        return seen, file.read().decode()


def _all_of(terminal: int) -> str:
    found = b""
    with os.fdopen(terminal, "rb", buffering=0) as file:
        try:
            while part := file.read(4096):
                found += part
        except OSError:  # how Linux tells that the other end is closed
            pass
    return found.decode()


LINES: Final = "training step 20 of 40  loss 1.1250  eval loss 2.5000\n"


@pytest.mark.parametrize("colours", [{}, {"FORCE_COLOR": "1"}])
def test_in_a_pipe_there_are_lines_and_no_bar(colours: dict[str, str]) -> None:
    ended = run(**colours)
    assert (ended.stdout.splitlines(), ended.stderr) == (SAID, LINES)


def test_a_log_has_a_line_for_each_tenth_of_the_steps_and_each_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = [0.0]
    monkeypatch.setattr(training_progress, "monotonic", lambda: seconds[0])
    with terminal_watch() as watch:
        watch.begins(100)
        for step in range(1, 101):
            watch.logged(step, {"loss": 1.0})
        watch.begins(1000)
        for step in range(101, 104):
            seconds[0] += 40
            watch.logged(step, {"loss": 1.0})
    steps = [int(line.split()[2]) for line in capsys.readouterr().err.splitlines()]
    assert steps == [*range(10, 101, 10), 102]


def test_other_processes_of_a_distributed_run_are_silent() -> None:
    ended = run(RANK="1")
    assert (ended.stdout, ended.stderr) == ("", "")
    assert run(RANK="0").stdout.splitlines() == SAID


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals in Python")
class TestOnATerminal:
    def test_the_bar_shows_steps_and_losses(self, tmp_path: Path) -> None:
        seen = CONTROL.sub("", on_terminal(tmp_path, stdout_too=False)[0])
        for part in ("training", "0/40", "eval loss 2.5000", "20/40", "loss 1.1250  eval loss 1.5000"):
            assert part in seen

    def test_what_is_said_goes_to_stdout_alone(self, tmp_path: Path) -> None:
        """A redirected report is whole, and has no bar in it."""
        seen, stdout = on_terminal(tmp_path, stdout_too=False)
        assert stdout.splitlines() == SAID
        assert "between" not in seen

    def test_on_one_terminal_every_line_stands_on_its_own(self, tmp_path: Path) -> None:
        """The bar is wiped before a line is printed: what follows the last wipe of its line is the line."""
        seen, _ = on_terminal(tmp_path, stdout_too=True)
        lines = [CONTROL.sub("", line.rpartition("\x1b[2K")[2]).rpartition("\r")[2] for line in seen.split("\r\n")]
        assert [line for line in lines if line in SAID] == SAID

    def test_nothing_of_the_bar_stays(self, tmp_path: Path) -> None:
        seen, _ = on_terminal(tmp_path, stdout_too=False)
        assert not CONTROL.sub("", seen.rpartition("\x1b[2K")[2]).strip()

    def test_other_processes_draw_no_bar(self, tmp_path: Path) -> None:
        assert on_terminal(tmp_path, stdout_too=True, environment={"RANK": "1"}) == ("", "")


def test_a_failure_ends_the_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The cursor, hidden beside a bar, is there again."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with suppress(ZeroDivisionError), terminal_watch() as watch:
        watch.begins(3)
        raise ZeroDivisionError
    seen = capsys.readouterr().err
    assert seen.rfind("\x1b[?25h") > seen.rfind("\x1b[?25l") >= 0
