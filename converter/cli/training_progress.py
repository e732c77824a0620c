"""What a terminal shows of a run: a bar on stderr while it trains, and on stdout what the run says.

``RANK`` is a process's number in a distributed run, 0 the first:
https://docs.pytorch.org/docs/stable/elastic/run.html
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from converter.training.watch import Unwatched, Watch

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_SHOWN: Final = {"loss": "loss", "eval_loss": "eval loss"}


@contextmanager
def terminal_watch() -> Iterator[Watch]:
    """A watch that shows the run; silence in all processes but the first. What it says after this is heard, too."""
    if os.environ.get("RANK", "0") != "0":
        yield Unwatched()
        return
    bar = _bar()
    try:
        yield TerminalWatch(bar)
    finally:
        bar.stop()


def _bar() -> "Progress":
    """Not shown in a pipe."""
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
        disable=not sys.stderr.isatty(),
    )


class TerminalWatch:
    """Looks on for a terminal, and stops nothing."""

    def __init__(self, bar: "Progress") -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._losses: dict[str, float] = {}

    def begins(self, n_steps: int) -> None:
        """Show the bar."""
        self._task = self._bar.add_task(self._description, total=n_steps)
        self._bar.start()

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        """Move the bar. The base is evaluated before there is one."""
        self._losses |= {name: values[name] for name in _SHOWN if name in values}
        if self._task is not None:
            self._bar.update(self._task, completed=step, description=self._description)

    def says(self, line: str) -> None:
        """Print a line on stdout, where the bar would be if both are one terminal."""
        was_shown = self._bar.live.is_started
        self._bar.stop()
        click.echo(line)
        if was_shown:
            self._bar.start()

    def stops(self, step: int, eval_loss: float) -> bool:  # noqa: ARG002  the protocol's
        """Never: who looks on at a terminal has Ctrl-C."""
        return False

    @property
    def _description(self) -> str:
        losses = ((shown, self._losses.get(name)) for name, shown in _SHOWN.items())
        return "  ".join(f"{shown} {loss:.4f}" for shown, loss in losses if loss is not None)
