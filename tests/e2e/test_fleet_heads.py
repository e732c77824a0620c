"""1,000 head LoRAs over one base by two of Ray's workers: one untied base, which gets its name once."""

import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from converter import Deployment, convert
from converter.errors import FINE
from fixtures.watched import NAMED, Watched
from tests.e2e.test_fleet_killed import gone, n_written, ray_processes, running, wait_for
from tests.unit.conversion import write_base
from tests.unit.fleet.small_fleet import adapter_fleet, rows_of, write_adapter, write_manifest

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(sys.platform != "linux", reason="events are counted by inotify"),
]
N_ADAPTERS = 1_000


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    write_base(tmp_path / "base.gguf")
    rows: list[dict[str, object]] = []
    for number in range(N_ADAPTERS):
        write_adapter(tmp_path / f"a{number}", number, with_head=True)
        row: dict[str, object] = {"adapter": f"a{number}", "base": "base.gguf", "output": f"out/a{number}.gguf"}
        rows.append(row | {"deployment": "untie-lora", "untied_base": "out/untied.gguf"})
    return write_manifest(tmp_path / "fleet.jsonl", rows)


def test_the_untied_base_is_written_once_though_the_driver_is_killed(manifest: Path) -> None:
    wanted = random.Random(7).randrange(2, N_ADAPTERS)  # noqa: S311  a moment, no secret
    top = manifest.parent
    with Watched(top / "out", NAMED) as watched:
        with running(manifest, "--workers", 2) as process:
            wait_for(process, watched, wanted)
            rays = ray_processes(process.pid)
            process.kill()
            assert gone(rays)
        ran = adapter_fleet(manifest, "--workers", 2)
        assert ran.returncode == FINE, ran.stderr
        names = {f"a{number}.gguf" for number in range(N_ADAPTERS)} | {"untied.gguf"}
        assert n_written(watched) == dict.fromkeys(names, 1)
    assert Counter(rows_of(top / "fleet.sqlite")) == {("fine",): N_ADAPTERS}
    for number in (0, 1, 500, N_ADAPTERS - 1):
        own = top / f"own{number}"
        convert(top / f"a{number}", own, base=top / "base.gguf", deployment=Deployment("lora", untie=True))
        assert (own / "lora.gguf").read_bytes() == (top / "out" / f"a{number}.gguf").read_bytes()
        assert (own / "untied-base.gguf").read_bytes() == (top / "out" / "untied.gguf").read_bytes()
