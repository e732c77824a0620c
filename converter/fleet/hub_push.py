"""Outputs on their way to a hub. A thread commits what has come together since its last commit: a hub counts commits.

It runs in the driver, so that no node of a cluster needs the token. A row ends when the hub has shown its files; one
whose end nobody noted is committed again, which changes nothing where it got through (converter/hub/uploads.py).
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Condition, Thread
from time import monotonic
from typing import Final, NamedTuple

from converter.errors import ConverterError
from converter.fleet.push import place_of
from converter.fleet.rows import Row
from converter.fleet.run import Workers
from converter.fleet.stamps import untied_stamps
from converter.fleet.task import Ended, Event, Held, Task, Waits
from converter.hub.uploads import Uploads
from converter.read.hub_address import HubAddress

_MOST: Final = 50  # rows of a commit; huggingface_hub asks for 50 to 100 files
_SECONDS: Final = 20.0  # between commits of fewer
_POLL_SECONDS: Final = 1.0
_ASKED: Final = 20  # repositories that are asked before anything starts; of more, each when its first rows come


class _Push(NamedTuple):
    address: HubAddress  # of the output
    ended: Ended

    @property
    def branch(self) -> HubAddress:
        return self.address._replace(folder="")


def with_pushes(workers: Workers, rows: Sequence[Row]) -> Workers:
    """Workers whose rows go on to a hub, where any of them are to. A hub is asked when there is something to do.

    They raise ConverterError, before the first row is done, where one can't be written to.
    """
    branches = sorted({row.push._replace(folder="") for row in rows if isinstance(row.push, HubAddress)})
    return partial(_pushing, workers, branches) if branches else workers


def _pushing(workers: Workers, branches: Sequence[HubAddress], tasks: Iterator[Task]) -> Generator[Event]:
    for first in tasks:
        hub = Uploads(branches[0])
        try:
            for branch in branches[:_ASKED]:
                hub.require_writable(branch)
            with closing(workers(chain([first], tasks))) as events:
                yield from _through(events, _Pushes(hub))
        finally:
            hub.close()


def _through(events: Iterator[Event], pushes: "_Pushes") -> Iterator[Event]:
    """The same events; a row that goes to a hub ends when it is there, or when that failed."""
    for event in events:
        if isinstance(event, Ended) and pushes.takes(event):
            yield Held(*event)
        else:
            yield event
        yield from pushes.ended()
    yield from pushes.rest()


class _Pushes:
    def __init__(self, hub: Uploads) -> None:
        self._hub = hub
        self._waiting: list[_Push] = []
        self._done: SimpleQueue[Ended] = SimpleQueue()
        self._changed = Condition()
        self._closing = False
        self._last = float("-inf")
        self._n_left = 0
        self._there: set[tuple[HubAddress, object]] = set()  # untied bases that a commit of this run had
        Thread(target=self._work, daemon=True).start()

    def takes(self, ended: Ended) -> bool:
        """Take a row that is to be pushed to a hub."""
        outcome = ended.outcome
        address = place_of(ended.task.row, ended.task.steps, ended.task.row.output)
        if outcome.state != "fine" or outcome.unchanged or not isinstance(address, HubAddress):
            return False
        self._n_left += 1
        with self._changed:
            self._waiting.append(_Push(address, ended))
            self._changed.notify()
        return True

    def ended(self, timeout: float = 0) -> Iterator[Ended]:
        """Rows that are there, or could not be pushed."""
        try:
            yield self._done.get(timeout=timeout) if timeout else self._done.get_nowait()
            self._n_left -= 1
            while True:
                yield self._done.get_nowait()
                self._n_left -= 1
        except Empty:
            return

    def rest(self) -> Iterator[Event]:
        """The last ones, for which nothing else has to be waited for."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        while self._n_left:
            yield from self.ended(_POLL_SECONDS)
            yield Waits(f"waiting for the hub to take {self._n_left} outputs")

    def _work(self) -> None:
        while batch := self._batch():
            for ended in self._committed(batch):
                self._done.put(ended)
            self._last = monotonic()

    def _batch(self) -> list[_Push]:
        """What is to be committed next, to one branch of one repository."""
        with self._changed:
            while not self._is_time():
                self._changed.wait(_POLL_SECONDS)
            batch = [push for push in self._waiting if push.branch == self._waiting[0].branch][:_MOST]
            self._waiting = [push for push in self._waiting if push not in batch]
            return batch

    def _is_time(self) -> bool:
        return self._closing or len(self._waiting) >= _MOST or (bool(self._waiting) and self._is_late())

    def _is_late(self) -> bool:
        return monotonic() - self._last >= _SECONDS

    def _committed(self, batch: list[_Push]) -> Iterator[Ended]:
        branch = batch[0].branch
        shared = {key: path for push in batch for key, path in _shared(push) if key not in self._there}
        files = {address.folder: path for (address, _), path in shared.items()}
        try:
            for push in batch:
                files.update(_own(push))
            commit = self._hub.commit(branch, files, f"adapter-fleet: {len(files)} files")
        except ConverterError as error:
            yield from _failed(batch, str(error))
            return
        except Exception as error:  # noqa: BLE001  the run would wait for these rows for ever
            yield from _failed(batch, f"{type(error).__name__}: an error of ours; please report it")
            return
        self._there.update(shared)
        for push in batch:
            task, outcome = push.ended
            yield Ended(task, outcome._replace(pushed=str(push.address._replace(revision=commit))))


def _failed(batch: list[_Push], why: str) -> Iterator[Ended]:
    for task, outcome in (push.ended for push in batch):
        yield Ended(task, outcome._replace(state="failed", message=f"{task.row.output}: not pushed: {why}"))


def _own(push: _Push) -> Iterator[tuple[str, Path]]:
    task = push.ended.task
    for path in push.ended.outcome.files:
        address = place_of(task.row, task.steps, path)
        assert isinstance(address, HubAddress)  # noqa: S101  as the output's own
        yield address.folder, path


def _shared(push: _Push) -> Iterator[tuple[tuple[HubAddress, object], Path]]:
    """The untied base that other rows may have too, where it goes, and which it is."""
    row = push.ended.task.row
    if row.untied_base:
        address = place_of(row, push.ended.task.steps, row.untied_base)
        assert isinstance(address, HubAddress)  # noqa: S101  as the output's own
        yield (address, untied_stamps(row)), row.untied_base
