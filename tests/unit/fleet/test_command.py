"""adapter-fleet as users run it: on Ray, started on this machine."""

import csv
import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from converter.cli import fleet
from converter.errors import COULD_NOT, JUDGED_BAD, NOTHING_LOOKED_AT
from fixtures.watched import NAMED, Watched
from tests.unit.fleet.small_fleet import adapter_fleet, n_readings, rows_of, write_adapter, write_fleet, write_manifest
from tests.unit.schemas import faults

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="events are counted by inotify")


def test_a_fleet_on_ray(tmp_path: Path) -> None:
    """Twelve adapters over three bases, one of them refused, four with one untied base; then nothing is left to do."""
    manifest = write_fleet(tmp_path / "fleet", 12, 3)
    write_adapter(tmp_path / "fleet" / "a7", with_head=True)
    untied = {"deployment": "untie-lora", "untied_base": "out/untied.gguf"}
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    write_manifest(manifest, [row | untied if row["base"] == "base0.gguf" else row for row in rows])
    out = tmp_path / "fleet" / "out"
    out.mkdir()
    files = ("--html", tmp_path / "fleet.html", "--export", tmp_path / "fleet.parquet")
    with Watched(out, NAMED) as watched:
        ran = adapter_fleet(manifest, "--workers", 2, *files)
        written = {name: n for name, n in watched.look().items() if not name.startswith(".")}
    assert ran.returncode == JUDGED_BAD, ran.stderr
    assert "12 adapters: 11 fine, 1 refused" in ran.stdout
    assert "a7: refused for --to lora: HD001" in ran.stderr
    assert written == {f"a{number}.gguf": 1 for number in range(12) if number != 7} | {"untied.gguf": 1}
    assert Counter(rows_of(manifest.with_suffix(".sqlite"))) == {("fine",): 11, ("refused",): 1}
    readings = n_readings(manifest.with_suffix(".sqlite"))
    assert {base for base, _ in readings} == {"base0.gguf", "base1.gguf", "base2.gguf"}
    assert set(readings.values()) == {1}
    assert pq.read_table(tmp_path / "fleet.parquet").column("state").to_pylist().count("fine") == 11
    assert "11 of 12 fine" in (tmp_path / "fleet.html").read_text(encoding="utf-8")
    again = adapter_fleet(manifest, "--export", tmp_path / "fleet.csv", "--format", "json")
    assert (again.returncode, again.stderr) == (JUDGED_BAD, "")
    said = json.loads(again.stdout)
    assert faults("fleet", said) == []
    assert (said["n_finished_before"], said["states"]["fine"], said["export"]) == (12, 11, f"{tmp_path}/fleet.csv")
    (refused,) = said["not_fine"]
    (finding,) = refused["findings"]
    assert (refused["state"], refused["status"], finding["code"]) == ("refused", JUDGED_BAD, "HD001")
    assert "--untie" in finding["remedy"]
    assert len(list(csv.DictReader((tmp_path / "fleet.csv").read_text(encoding="utf-8").splitlines()))) == 12


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(fleet.main, [*map(str, arguments)])
    return result.exit_code, result.stderr


def test_nothing_to_look_at_is_status_3(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("adapter,output\n", encoding="utf-8")
    assert run(tmp_path / "x.csv") == (NOTHING_LOOKED_AT, f"adapter-fleet: {tmp_path}/x.csv: holds no adapter\n")
    assert run(tmp_path, "-o", tmp_path / "out")[0] == NOTHING_LOOKED_AT


def test_a_bad_manifest_starts_nothing(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "x.jsonl", [{"adapter": "a", "output": "o"}, {"adapter": "b", "output": "o"}])
    status, told = run(manifest)
    assert status == COULD_NOT
    assert told.startswith(f"adapter-fleet: {manifest}: line 2: output")
    assert len(told.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


PUSHES: dict[str, list[dict[str, object]]] = {
    "the place of another": [
        {"adapter": "a", "output": "out/sub/x.gguf", "push": "pushed"},
        {"adapter": "b", "output": "out/x.gguf", "push": "pushed/sub"},
    ],
    "a base": [{"adapter": "a", "output": "out/base.gguf", "push": "pushed", "base": "pushed/base.gguf"}],
    "an output": [
        {"adapter": "a", "output": "out/x.gguf", "push": "out/pushed"},
        {"adapter": "b", "output": "out/pushed/x.gguf"},
    ],
}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            PUSHES["the place of another"],
            "line 2: push of out/x.gguf to pushed/sub/x.gguf, where line 1 pushes another",
        ),
        (PUSHES["a base"], "line 1: push of out/base.gguf to pushed/base.gguf, which is base of line 1"),
        (PUSHES["an output"], "line 1: push of out/x.gguf to out/pushed/x.gguf, which is output of line 2"),
    ],
    ids=PUSHES,
)
def test_a_push_replaces_nothing_of_the_fleet(rows: list[dict[str, object]], said: str, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "x.jsonl", rows)
    status, told = run(manifest, "--output", tmp_path / "out")
    assert status == COULD_NOT
    assert said in told.replace(f"{manifest}: ", "").replace(f"{tmp_path}/", "")
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


@pytest.mark.parametrize("option", ["--html", "--export", "--table"])
def test_no_input_is_written_over(option: str, tmp_path: Path) -> None:
    manifest = tmp_path / "x.csv"
    manifest.write_text("adapter,output\na,o\n", encoding="utf-8")
    before = manifest.read_bytes()
    status, told = run(manifest, option, manifest)
    assert (status, manifest.read_bytes()) == (COULD_NOT, before)
    assert "is the manifest" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--host", "wide"), "--host needs --untie"),
        (("--prompts", "x"), "--prompts needs --verify"),
        (("--html", "nowhere/x.html"), "nowhere/x.html: there is no such directory; make it first"),
        (("--push", "s3://bucket/x"), "--push s3://bucket/x: wanted a directory, or hf://ORG/NAME"),
        (("--export", "x.xlsx"), "x.xlsx: can't be exported to by its name; wanted .csv or .parquet"),
    ],
)
def test_options_that_dont_go_together(options: tuple[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("adapter,output\na,o\n", encoding="utf-8")
    status, told = run(tmp_path / "x.csv", *options)
    assert status == COULD_NOT
    assert message in told


@pytest.mark.parametrize("address", ["ray://127.0.0.1:1", "here", "127.0.0.1:ssh", "127.0.0.1:99999"])
def test_an_address_is_a_host_and_a_port(address: str, tmp_path: Path) -> None:
    told = f"adapter-fleet: --address {address}: is no address of a Ray cluster; wanted HOST:PORT, or auto\n"
    assert run(tmp_path / "x.csv", "--address", address) == (COULD_NOT, told)


def test_a_cluster_that_isnt_there_is_told_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, told = run(tmp_path / "x.csv", "--address", address)
    assert status == COULD_NOT
    assert told.startswith(f"adapter-fleet: --address {address}: no Ray cluster answers there (Connection refused); ")


def test_nothing_of_a_fleet_is_imported_by_other_commands() -> None:
    probe = (
        "import sys, json, converter.cli.check, converter.cli.to_gguf, converter.cli.verify, converter.library\n"
        "print(json.dumps([name for name in sys.modules if name == 'ray' or 'fleet' in name]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert json.loads(ran.stdout) == []
