"""How far a fleet is: a bar on a terminal, in a log a line now and then, and what keeps adapters from being fine."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

import click

from converter.fleet.task import STATUS, Outcome, State
from converter.report.printable import printable

_SECONDS_BETWEEN: Final = 10.0
_SECONDS_WITHOUT: Final = 60.0  # where nothing came
_N_TOLD: Final = 20  # of the adapters that aren't fine; the table has all of them


@contextmanager
def watching(n_rows: int) -> "Iterator[_Watch]":
    """A watch that shows how far the run is, on stderr."""
    if not sys.stderr.isatty():
        yield _Watch(_log(n_rows))
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("adapters"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=n_rows)
        yield _Watch(
            lambda done, words: bar.update(task, completed=done, description=words),
            lambda line: bar.console.print(line, markup=False, highlight=False),
        )


def _log(n_rows: int) -> Callable[[int, str], None]:
    told_at, told = monotonic(), 0

    def shows(done: int, words: str) -> None:
        nonlocal told_at, told
        if monotonic() - told_at >= (_SECONDS_BETWEEN if done > told else _SECONDS_WITHOUT):
            told_at, told = monotonic(), done
            click.echo(f"adapter-fleet: {done} of {n_rows}: {words}", err=True)

    return shows


class _Watch:
    def __init__(self, shows: Callable[[int, str], None], says: Callable[[str], None] | None = None) -> None:
        self._shows = shows
        self._says = says or (lambda line: click.echo(line, err=True))
        self._states: Counter[State] = Counter()
        self._n_now = self._n_told = 0
        self._begin = 0.0  # when the first one ended: Ray takes seconds to start

    def finished(self, state: State) -> None:
        """Count a row of an earlier run."""
        self._states[state] += 1

    def ended(self, outcome: Outcome, state: State) -> None:
        """Show how far it is by now, and what isn't fine."""
        self._states[state] += 1
        self._begin = self._begin or monotonic()
        self._n_now += 1
        if outcome.message:
            self._tell(outcome.message)
        self.waits()

    def waits(self, what: str = "") -> None:
        """Show how far it is, and what is waited for."""
        self._shows(self._states.total(), f"{self._words()}{what and '; '}{what}")

    def _words(self) -> str:
        ended = ", ".join(f"{self._states[state]} {state}" for state in STATUS if self._states[state])
        seconds = monotonic() - self._begin if self._n_now > 1 else 0
        rate = f"; {(self._n_now - 1) / seconds:.1f} a second" if seconds else ""
        return f"{ended or 'none ended yet'}{rate}"

    def _tell(self, message: str) -> None:
        self._n_told += 1
        if self._n_told <= _N_TOLD:
            self._says(printable(f"adapter-fleet: {message}"))
        elif self._n_told == _N_TOLD + 1:
            self._says("adapter-fleet: more that aren't fine: the table has all of them")
