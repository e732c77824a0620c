"""adapter-fleet --push hf://: the command on Ray, before a hub on this machine; it is killed and stopped on the way."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from converter.errors import COULD_NOT, FINE
from fixtures.writable_hub import WritableHandler, WritableHub, answered, taking
from tests.e2e.test_fleet_killed import gone, ray_processes
from tests.unit.fleet.small_fleet import write_fleet

pytestmark = [pytest.mark.thorough, pytest.mark.skipif(sys.platform != "linux", reason="Ray's processes are looked at")]
N_ADAPTERS = 200


@contextmanager
def pushing(hub: WritableHub, manifest: Path, *options: object) -> Iterator["subprocess.Popen[str]"]:
    """The command with Ray, as a user's shell starts it."""
    command = [
        sys.executable,
        "-m",
        "converter",
        "fleet",
        manifest,
        "--workers",
        2,
        "--push",
        "hf://org/name",
        *options,
    ]
    own = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": str(hub.token), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        list(map(str, command)), env=os.environ | own, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_uploads(process: "subprocess.Popen[str]", hub: WritableHub, wanted: int) -> None:
    while len(hub.uploads) < wanted:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.005)


def outputs(manifest: Path) -> dict[str, bytes]:
    return {f"out/{path.name}": path.read_bytes() for path in (manifest.parent / "out").glob("*.gguf")}


@pytest.mark.parametrize("seed", range(2))
def test_the_driver_is_killed_and_each_output_is_sent_once(seed: int, tmp_path: Path) -> None:
    """At an upload by chance; the second run ends in what one run would have left."""
    manifest = write_fleet(tmp_path, N_ADAPTERS)
    with taking(WritableHub()) as hub:
        with pushing(hub, manifest) as process:
            wait_for_uploads(process, hub, random.Random(seed).randrange(1, N_ADAPTERS - 20))  # noqa: S311  no secret
            rays = ray_processes(process.pid)
            process.kill()
            assert gone(rays)
        n_before = len(hub.uploads)
        with pushing(hub, manifest, "--format", "json", "--html", tmp_path / "fleet.html") as process:
            said, told = process.communicate(timeout=300)
        assert process.returncode == FINE, told
        assert json.loads(said)["states"]["fine"] == N_ADAPTERS
        assert hub.head == outputs(manifest)
        assert len(hub.head) == N_ADAPTERS
        assert len(hub.uploads) == len(set(hub.uploads)) == N_ADAPTERS
        assert len(hub.commits) < N_ADAPTERS / 5
        assert n_before < N_ADAPTERS
        written = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
        assert str(hub.token) not in said + told
        assert str(hub.token).encode() not in written


def test_ctrl_c_ends_a_push(tmp_path: Path) -> None:
    """Though the hub takes its time; and the row is pushed by the next run."""
    manifest = write_fleet(tmp_path, 2)
    reached: list[float] = []

    def slow(handler: WritableHandler) -> None:
        reached.append(time.monotonic())
        hub.faults.clear()
        time.sleep(60)
        answered(handler)

    with taking(WritableHub()) as hub:
        hub.faults["/commit/"] = slow  # type: ignore[assignment]
        with pushing(hub, manifest) as process:
            while not reached:
                assert process.poll() is None, process.stderr and process.stderr.read()
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            begin = time.monotonic()
            _, told = process.communicate(timeout=60)
        assert time.monotonic() - begin < 30
        assert process.returncode == 128 + signal.SIGINT, told
        assert told.endswith("adapter-fleet: interrupted\n")
        with pushing(hub, manifest) as process:
            _, told = process.communicate(timeout=120)
        assert process.returncode == FINE, told
        assert hub.head == outputs(manifest)


def test_a_hub_that_refuses_is_told_before_ray_starts(tmp_path: Path) -> None:
    with taking(WritableHub(may_write=False)) as hub, pushing(hub, write_fleet(tmp_path, 1)) as process:
        begin = time.monotonic()
        said, told = process.communicate(timeout=60)
    assert (process.returncode, said) == (COULD_NOT, "")
    assert re.fullmatch(r"adapter-fleet: hf://org/name@main: this token may not write there \(status 403\); .*\n", told)
    assert time.monotonic() - begin < 20
