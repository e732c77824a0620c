"""1,000 adapters over three bases by two of Ray's workers; a node, the driver and a worker's process are killed.

Each output gets its name exactly once, as the kernel tells, and is what one conversion without Ray writes.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from converter import Deployment, convert
from converter.errors import COULD_NOT, FINE
from fixtures.watched import NAMED, Watched
from tests.unit.conversion import write_base
from tests.unit.fleet.small_fleet import (
    adapter_fleet,
    n_readings,
    rows_of,
    write_adapter,
    write_fleet,
    write_manifest,
)

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(sys.platform != "linux", reason="events are counted by inotify"),
]
N_ADAPTERS = 1_000
N_BASES = 3
KINDS = ("lora", "model")


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("adapters")
    for number in range(N_BASES):
        write_base(top / f"base{number}.gguf")
    for number in range(N_ADAPTERS):
        write_adapter(top / f"a{number}", number)
    return top


@pytest.fixture
def manifest(adapters: Path, tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    rows: list[dict[str, object]] = [
        {
            "adapter": f"{adapters}/a{number}",
            "base": f"{adapters}/base{number % N_BASES}.gguf",
            "deployment": KINDS[number % 2],
            "output": f"out/a{number}.gguf",
        }
        for number in range(N_ADAPTERS)
    ]
    return write_manifest(tmp_path / "fleet.jsonl", rows)


@contextmanager
def running(*arguments: object) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-m", "converter", "fleet", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def n_written(watched: Watched) -> Counter[str]:
    return Counter({name: n for name, n in watched.look().items() if not name.startswith(".")})


def wait_for(process: "subprocess.Popen[str]", watched: Watched, wanted: int) -> None:
    while len(n_written(watched)) < wanted:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.02)


def assert_done_once(manifest: Path, watched: Watched, adapters: Path) -> None:
    written = n_written(watched)
    assert set(written) == {f"a{number}.gguf" for number in range(N_ADAPTERS)}
    assert {name: n for name, n in written.items() if n > 1} == {}
    assert Counter(rows_of(manifest.with_suffix(".sqlite"))) == {("fine",): N_ADAPTERS}
    own = manifest.parent / "own.gguf"
    for number in range(N_ADAPTERS):
        base, deployment = adapters / f"base{number % N_BASES}.gguf", Deployment(KINDS[number % 2])  # type: ignore[arg-type]
        convert(adapters / f"a{number}", own, base=base, deployment=deployment)
        assert own.read_bytes() == (manifest.parent / "out" / f"a{number}.gguf").read_bytes(), number


def ray_processes(root: int) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(root).children(recursive=True)
    return found


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them end within a minute; but Ray's agents, which may take two, and do no work."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if not any(is_alive(process) for process in processes):
            return True
        time.sleep(0.1)
    return False


def is_alive(process: psutil.Process) -> bool:
    """Where nobody takes note of its end, as in a container, it stays a zombie."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "Agent" not in "".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def test_each_adapter_is_done_and_each_base_read_once(manifest: Path, adapters: Path) -> None:
    """And a worker's process is killed on the way: Ray does again what it had."""
    with Watched(manifest.parent / "out", NAMED) as watched, running(manifest, "--workers", 2) as process:
        wait_for(process, watched, 200)
        worker = next(
            it for it in ray_processes(process.pid) if re.match("ray::(_do|IDLE)", it.name() + it.cmdline()[0])
        )
        worker.kill()
        out, told = process.communicate(timeout=300)
        assert process.returncode == FINE, told
        assert f"{N_ADAPTERS} adapters: {N_ADAPTERS} fine" in out
        assert_done_once(manifest, watched, adapters)
    readings = n_readings(manifest.with_suffix(".sqlite"))
    assert {base for base, _ in readings} == {f"base{number}.gguf" for number in range(N_BASES)}
    assert set(readings.values()) == {1}


@pytest.mark.parametrize("seed", range(3))
def test_the_driver_is_killed_and_started_again(seed: int, manifest: Path, adapters: Path) -> None:
    wanted = random.Random(seed).randrange(1, N_ADAPTERS)  # noqa: S311  a moment, no secret
    with Watched(manifest.parent / "out", NAMED) as watched:
        with running(manifest, "--workers", 2) as process:
            wait_for(process, watched, wanted)
            rays = ray_processes(process.pid)
            process.kill()
            assert gone(rays), "Ray ends with its driver"
        before = n_written(watched)
        assert len(before) < N_ADAPTERS
        ran = adapter_fleet(manifest, "--workers", 2)
        assert ran.returncode == FINE, ran.stderr
        found = re.search(r"; (\d+) of them before this run", ran.stdout)
        assert found
        (n_adopted,) = (sum(int(str(n)) for (n,) in rows_of(manifest.with_suffix(".sqlite"), "adopted")),)
        assert int(found[1]) + n_adopted == len(before), "what was there counts as done"
        assert_done_once(manifest, watched, adapters)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray's Cluster leaves its logs open
@pytest.mark.parametrize("seed", range(3))
def test_a_node_is_killed(seed: int, manifest: Path, adapters: Path) -> None:
    """Two raylets on this machine, a CPU each; the second one and its processes die at some moment."""
    wanted = random.Random(100 + seed).randrange(1, N_ADAPTERS - 100)  # noqa: S311  as above
    with cluster_of_two() as (address, kill_second), Watched(manifest.parent / "out", NAMED) as watched:
        with running(manifest, "--address", address, "--retries", 5) as process:
            wait_for(process, watched, wanted)
            nodes = Counter(str(node) for (node,) in rows_of(manifest.with_suffix(".sqlite"), "node"))
            kill_second()
            out, told = process.communicate(timeout=300)
            assert process.returncode == FINE, told
            assert f"{N_ADAPTERS} adapters: {N_ADAPTERS} fine" in out
        assert wanted < 50 or len(nodes) == 2, "both had worked"
        assert_done_once(manifest, watched, adapters)
    assert max(n_readings(manifest.with_suffix(".sqlite")).values()) == 1


@contextmanager
def cluster_of_two() -> Iterator[tuple[str, Callable[[], None]]]:
    """Ray's own way to have two nodes on one machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    try:
        yield cluster.address, lambda: cluster.remove_node(second, allow_graceful=False)
    finally:
        cluster.shutdown()


def test_ctrl_c_leaves_a_table_to_go_on_from(manifest: Path) -> None:
    with Watched(manifest.parent / "out", NAMED) as watched, running(manifest, "--workers", 2) as process:
        wait_for(process, watched, 20)
        rays = ray_processes(process.pid)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGINT
        assert told.endswith("adapter-fleet: interrupted\n")
        assert gone(rays)
        assert 0 < len(rows_of(manifest.with_suffix(".sqlite"))) < N_ADAPTERS


def test_a_machine_without_memory_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray kills what it finds there, and by itself would do it again for ever."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "250")
    ran = adapter_fleet(write_fleet(tmp_path, 2, 1), "--workers", 2, "--retries", 1)
    assert ran.returncode == COULD_NOT
    assert "2 adapters: 2 failed" in ran.stdout
    assert "OutOfMemoryError" in str(rows_of(tmp_path / "fleet.sqlite", "message"))
