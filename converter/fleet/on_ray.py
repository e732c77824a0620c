"""The workers: Ray's. It places tasks, and does those again whose process or node died; a cluster is one by address.

What a base says is an object of Ray's: read in one task, sent to each node that has adapters on it, and unpickled once
by each process there. Lost with its node, it is read again, as Ray reconstructs objects:
https://docs.ray.io/en/latest/ray-core/fault_tolerance/objects.html
"""

import logging
import os
import signal
import socket
from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from time import monotonic
from typing import Any, Final, NamedTuple

from converter.errors import ConverterError
from converter.fleet.deadline import ends_within
from converter.fleet.task import Ended, Event, Outcome, Reading, Task, Waits

_AHEAD: Final = 2  # tasks for each CPU that are handed over before the last ones ended: memory stays flat
_STORE_NBYTES: Final = 256 << 20  # of the object store on this machine; what a base says takes up to 40 MB
_N_BASES: Final = 2  # that a worker's process keeps unpickled
_POLL_SECONDS: Final = 1.0
_CONNECT_SECONDS: Final = 10.0
START_SECONDS: Final = 180.0  # on a machine with six times the load that it has CPUs for, Ray took 15
_STARTS: Final = f"adapter-fleet: waiting for Ray to start, up to {START_SECONDS:.0f} s"
_NO_START: Final = (
    f"adapter-fleet: Ray didn't start within {START_SECONDS:.0f} s: its raylet doesn't answer, as on a machine that is "
    "too busy. Run it again; what Ray says is in /tmp/ray/session_latest/logs"
)


class Cluster(NamedTuple):
    """Where the work is done: the ``address`` of a Ray cluster, or this machine.

    ``workers`` is how many adapters are done at once, at most; by default one for each CPU. ``retries`` is how often
    Ray does one again whose process or node died.
    """

    address: str | None = None
    workers: int | None = None
    retries: int = 3


def ray_workers(cluster: Cluster, tasks: Iterator[Task]) -> Generator[Event]:
    """What comes of each task, and each reading of a base. Ray is started with the first task, and ended at the end.

    Raises ConverterError where Ray can't be had.
    """
    for first in tasks:
        yield Waits(f"starting Ray at {cluster.address or 'this machine'}")
        with _connected(cluster) as ray:
            yield from _Workers(ray, cluster).results(chain([first], tasks))


def check_address(address: str) -> None:
    """Raise ConverterError where no cluster answers at HOST:PORT: Ray itself would try for two minutes."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or int(port) > 65535:
        raise ConverterError(f"--address {address}: is no address of a Ray cluster; wanted HOST:PORT, or auto")
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise ConverterError(
            f"--address {address}: no Ray cluster answers there ({error.strerror or error}); "
            "start one with `ray start --head`, or leave --address out"
        ) from error


@contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    # Before the import: nothing is told to anybody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # without it, each task warns of a change to come
    os.environ.setdefault("RAY_task_oom_retries", str(cluster.retries))  # Ray's own default is without end
    import ray

    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        with ends_within(START_SECONDS, _NO_START, _STARTS):
            ray.init(**_options(cluster), log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        where = cluster.address or "this machine"
        raise ConverterError(f"Ray can't be had at {where}: {' '.join(str(error).split())[:300]}") from error
    signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own would end with status 15
    try:
        yield ray
    finally:
        ray.shutdown()


def _options(cluster: Cluster) -> dict[str, Any]:
    if cluster.address:
        return {"address": cluster.address}
    own = {"include_dashboard": False, "object_store_memory": _STORE_NBYTES}
    return {"address": "local", "num_cpus": cluster.workers, **own}


class _Workers:
    def __init__(self, ray: Any, cluster: Cluster) -> None:
        self._ray, self._cluster = ray, cluster
        options = {"num_cpus": 1, "max_retries": cluster.retries}
        self._read, self._do = ray.remote(**options)(_read), ray.remote(**options)(_do)
        self._readings: set[str] = set()
        self._room, self._asked_at = 0, float("-inf")

    def results(self, tasks: Iterator[Task]) -> Iterator[Event]:
        """Tasks are taken as there is room for them."""
        base, path = None, None
        running: dict[Any, Task] = {}
        for task in tasks:
            if task.base != path:
                base, path = self._read.remote(task.base), task.base
                yield from self._read_first(base, task)
            reference = self._do.remote(task, [base])
            running[reference] = task
            while len(running) >= self._most() or (task.is_alone and reference in running):
                yield from self._ended(running)
        while running:
            yield from self._ended(running)

    def _read_first(self, base: Any, task: Task) -> Iterator[Event]:
        """Wait until the base is there: tasks that waited for it would have new processes started."""
        while not self._ray.wait([base], timeout=_POLL_SECONDS, fetch_local=False)[0]:
            yield Waits(f"waiting for a process of Ray's to read {task.base}")

    def _most(self) -> int:
        """How many tasks Ray may have at a time; nodes come and go."""
        if monotonic() - self._asked_at > _POLL_SECONDS:
            n_cpus = int(self._ray.cluster_resources().get("CPU", 0))
            self._asked_at = monotonic()
            self._room = max(_AHEAD * n_cpus, 1)
        limit = self._cluster.workers if self._cluster.address else None
        return min(self._room, limit or self._room)

    def _ended(self, running: dict[Any, Task]) -> Iterator[Event]:
        ended, _ = self._ray.wait([*running], timeout=_POLL_SECONDS)
        if not ended:
            yield Waits()
        for reference in ended:
            task = running.pop(reference)
            outcome, reading = self._result(task, reference)
            if reading and reading.id not in self._readings:
                self._readings.add(reading.id)
                yield reading
            yield Ended(task, outcome)

    def _result(self, task: Task, reference: Any) -> tuple[Outcome, Reading | None]:
        from ray.exceptions import RayError, RayTaskError

        try:
            result: tuple[Outcome, Reading] = self._ray.get(reference)
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            what = f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
            why = f"its process or node ended {self._cluster.retries + 1} times, or that which read its base: {what}"
            if not isinstance(cause, RayError):
                why = f"{what}: an error of ours; please report it"
            why = f"{task.row.adapter}: {why}"
        else:
            return result
        return Outcome(task.row.output, "failed", why), None


# In a worker's process. ---------------------------------------------------------------------------------------------

_bases: OrderedDict[str, Reading] = OrderedDict()


def _read(base: Path) -> Reading:
    from converter.fleet.work import read_base

    return read_base(base, _node())


def _do(task: Task, base: list[Any]) -> tuple[Outcome, Reading]:
    """The reference comes in a list, or else Ray would unpickle the base for every task."""
    from converter.fleet.work import done

    reading = _unpickled(base[0])
    return done(task, reading)._replace(node=_node()), reading._replace(model=None)


def _unpickled(reference: Any) -> Reading:
    key = reference.hex()
    if key not in _bases:
        import ray

        _bases[key] = ray.get(reference)
        while len(_bases) > _N_BASES:
            _bases.popitem(last=False)
    _bases.move_to_end(key)
    return _bases[key]


def _node() -> str:
    import ray

    with suppress(RuntimeError):
        return f"{ray.util.get_node_ip_address()} {ray.get_runtime_context().get_node_id()[:12]}"
    return ""
