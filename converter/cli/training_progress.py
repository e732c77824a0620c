"""What a terminal or a log shows of a run: a bar or lines on stderr while it trains, on stdout what the run says.

``RANK`` is a process's number in a distributed run, 0 the first:
https://docs.pytorch.org/docs/stable/elastic/run.html
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final

import click

from converter.training.watch import Unwatched, Watch

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SHOWN: Final = {"loss": "loss", "eval_loss": "eval loss"}
_SECONDS_BETWEEN: Final = 60


@contextmanager
def terminal_watch(*, on_stderr: bool = False) -> Iterator[Watch]:
    """A watch that shows the run; silence in all processes but the first. What it says after this is heard, too.

    ``on_stderr``: stdout is for something else, and what the run says goes where the progress is.
    """
    if os.environ.get("RANK", "0") != "0":
        yield Unwatched()
        return
    if not sys.stderr.isatty():
        yield LogWatch(on_stderr=on_stderr)
        return
    bar = _bar()
    try:
        yield TerminalWatch(bar, on_stderr=on_stderr)
    finally:
        bar.stop()


def _bar() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )


class LogWatch:
    """Looks on where no terminal is, as in a CI log: a line on stderr at each tenth of the steps, and every minute."""

    def __init__(self, *, on_stderr: bool = False) -> None:
        self._on_stderr = on_stderr
        self._n_steps = self._n_told = 0
        self._told_at = monotonic()
        self._losses: dict[str, float] = {}

    def begins(self, n_steps: int) -> None:
        """Know how many steps there will be."""
        self._n_steps, self._told_at = n_steps, monotonic()

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        """Tell of the step, where it is time to."""
        self._losses |= _shown(values)
        is_due = 10 * (step - self._n_told) >= self._n_steps or monotonic() - self._told_at >= _SECONDS_BETWEEN
        if self._n_steps and step > self._n_told and is_due:
            self._n_told, self._told_at = step, monotonic()
            click.echo(f"training step {step} of {self._n_steps}  {_words(self._losses)}".rstrip(), err=True)

    def says(self, line: str) -> None:
        """Print a line."""
        click.echo(line, err=self._on_stderr)

    def stops(self, step: int, eval_loss: float) -> bool:  # noqa: ARG002  the protocol's
        """Never."""
        return False


def _shown(values: Mapping[str, float]) -> dict[str, float]:
    return {name: values[name] for name in _SHOWN if name in values}


def _words(losses: Mapping[str, float]) -> str:
    return "  ".join(f"{shown} {losses[name]:.4f}" for name, shown in _SHOWN.items() if name in losses)


class TerminalWatch:
    """Looks on for a terminal, and stops nothing."""

    def __init__(self, bar: "Progress", *, on_stderr: bool = False) -> None:
        self._bar, self._on_stderr = bar, on_stderr
        self._task: TaskID | None = None
        self._losses: dict[str, float] = {}

    def begins(self, n_steps: int) -> None:
        """Show the bar."""
        self._task = self._bar.add_task(_words(self._losses), total=n_steps)
        self._bar.start()

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        """Move the bar. The base is evaluated before there is one."""
        self._losses |= _shown(values)
        if self._task is not None:
            self._bar.update(self._task, completed=step, description=_words(self._losses))

    def says(self, line: str) -> None:
        """Print a line where the bar would be, if both are one terminal."""
        was_shown = self._bar.live.is_started
        self._bar.stop()
        click.echo(line, err=self._on_stderr)
        if was_shown:
            self._bar.start()

    def stops(self, step: int, eval_loss: float) -> bool:  # noqa: ARG002  the protocol's
        """Never: who looks on at a terminal has Ctrl-C."""
        return False
