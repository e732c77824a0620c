"""A whole fleet: the rows that aren't finished go to workers, and what comes of each goes into the table."""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Protocol

from converter.errors import COULD_NOT, Status, worst
from converter.fleet.push import check_pushes
from converter.fleet.resume import Finished, Plan, Unreadable
from converter.fleet.rows import Row, Steps, refuse_clashes
from converter.fleet.stamps import Stamps
from converter.fleet.table import Table
from converter.fleet.task import STATUS, Ended, Event, Held, Outcome, Reading, State, Task, Waits

# Takes a task when it has room, and yields what comes of each, in any order, and every reading of a base.
Workers = Callable[[Iterator[Task]], Generator[Event]]


class Watch(Protocol):
    """Who looks on."""

    def finished(self, state: State) -> None:
        """A row ended in an earlier run."""

    def ended(self, outcome: Outcome, state: State) -> None:
        """A row ended in this one."""

    def waits(self, what: str = "") -> None:
        """Nothing came for a while; ``what`` is waited for where it is no adapter."""


class Result(NamedTuple):
    """How many rows ended in which state, and how many of them in earlier runs.

    ``closed`` is where adapters could not be looked for, with the reason.
    """

    states: Counter[State]
    n_finished_before: int
    n_adopted: int
    closed: tuple[tuple[Path, str], ...] = ()

    @property
    def status(self) -> Status:
        """The exit status of the run."""
        statuses = [STATUS[state] for state in self.states]
        return worst([*statuses, COULD_NOT] if self.closed else statuses)

    @property
    def words(self) -> str:
        """How many there were, and how they ended."""
        ended = ", ".join(f"{self.states[state]} {state}" for state in STATUS if self.states[state])
        before = f"; {self.n_finished_before} of them before this run" if self.n_finished_before else ""
        return f"{self.states.total()} adapters: {ended or 'nothing to do'}{before}"


def ordered(rows: Iterable[Row]) -> list[Row]:
    """Rows of one base behind each other: a worker has the base of its last adapter at hand."""
    return sorted(rows, key=lambda row: (str(row.base or ""), str(row.untied_base or "")))


def check_rows(rows: Sequence[Row], steps: Steps) -> None:
    """Raise ConverterError where the rows can't be done together. Nothing has been started then."""
    refuse_clashes(rows)
    check_pushes(rows, steps)


def run(rows: Sequence[Row], steps: Steps, table: Table, workers: Workers, watch: Watch) -> Result:
    """Do every row that isn't finished; ``check_rows`` has let them pass. Raises what ``workers`` does."""
    fleet = _Fleet(table, watch)
    plan = Plan(table, steps)
    with closing(workers(fleet.tasks(plan.of(row) for row in ordered(rows)))) as events:
        for event in events:
            match event:
                case Waits(what):
                    watch.waits(what)
                case Reading():
                    table.base_read(event)
                case Held(task, outcome):
                    fleet.note(task, outcome)
                case Ended(task, outcome):
                    fleet.end(task, outcome)
    return Result(fleet.states, fleet.n_finished, fleet.n_adopted)


class _Fleet:
    def __init__(self, table: Table, watch: Watch) -> None:
        self._table, self._watch = table, watch
        self.states: Counter[State] = Counter()
        self.n_finished = self.n_adopted = 0
        # By its base: whole in this run, and whether pushed too.
        self._untied: dict[tuple[Path | None, Path], tuple[Stamps, bool]] = {}

    def tasks(self, planned: Iterable[Task | Finished | Unreadable]) -> Iterator[Task]:
        """The tasks among what is planned, noted down as started; the rest is over at once."""
        for thing in planned:
            match thing:
                case Task():
                    yield self._table.start(self._with_untied(thing))
                case Finished(_, state):
                    self.states[state] += 1
                    self.n_finished += 1
                    self._watch.finished(state)
                case Unreadable(task, outcome):
                    self.end(task, outcome)

    def _with_untied(self, task: Task) -> Task:
        stamps, pushed = self._untied.get((task.row.untied_base, task.base), ((), False))
        return task._replace(untied=stamps, untied_pushed=pushed)

    def note(self, task: Task, outcome: Outcome) -> None:
        """That a row's untied base is whole, for the rows which need it too."""
        if task.row.untied_base and outcome.untied:
            key = task.row.untied_base, task.base
            _, pushed = self._untied.get(key, ((), False))
            self._untied[key] = outcome.untied, pushed or outcome.pushed is not None

    def end(self, task: Task, outcome: Outcome) -> None:
        known = self._table.known(task.row.output) if outcome.unchanged else None
        state = known.state if known else outcome.state
        self._table.end(task, outcome)
        self.note(task, outcome)
        self.states[state] += 1
        self.n_adopted += outcome.adopted
        self._watch.ended(outcome, state)
