"""Head LoRAs over one untied base: it is written once, whichever row comes first, and each row has it whole."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from converter import Deployment, convert
from converter.errors import COULD_NOT, ConverterError
from converter.fleet.manifest import Defaults, read_manifest
from converter.fleet.rows import Row, refuse_clashes
from converter.fleet.task import Task
from converter.writing.outputs import Sink, refuse_different
from tests.unit.conversion import write_base
from tests.unit.fleet.small_fleet import Serial, run_fleet, write_adapter, write_fleet, write_manifest


def write_heads(top: Path, n_adapters: int = 4) -> Path:
    """Adapters with a head over one tied base, and the manifest of them."""
    manifest = write_fleet(top, n_adapters, 1, deployment="untie-lora", untied_base="out/untied.gguf")
    for number in range(n_adapters):
        write_adapter(top / f"a{number}", number, with_head=True)
    return manifest


def inodes(top: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_ino for path in (top / "out").glob("*.gguf")}


def second_run(manifest: Path) -> list[str]:
    workers = Serial()
    assert run_fleet(manifest, workers).states == {"fine": 4}
    return workers.did


def test_all_rows_have_one_untied_base(tmp_path: Path) -> None:
    """Both files are, byte for byte, what adapter-to-gguf writes."""
    manifest = write_heads(tmp_path)
    seen: set[int] = set()
    workers = Serial(after=lambda _: seen.add(inodes(tmp_path)["untied"]))
    assert run_fleet(manifest, workers).states == {"fine": 4}
    assert set(inodes(tmp_path)) == {"a0", "a1", "a2", "a3", "untied"}
    assert len(seen) == 1
    for number in range(4):
        own = tmp_path / f"own{number}"
        convert(tmp_path / f"a{number}", own, base=tmp_path / "base0.gguf", deployment=Deployment("lora", untie=True))
        assert (own / "lora.gguf").read_bytes() == (tmp_path / "out" / f"a{number}.gguf").read_bytes()
        assert (own / "untied-base.gguf").read_bytes() == (tmp_path / "out" / "untied.gguf").read_bytes()
    assert second_run(manifest) == []


def test_the_first_row_may_be_refused(tmp_path: Path) -> None:
    manifest = write_heads(tmp_path, 2)
    (tmp_path / "a0" / "adapter_config.json").write_text("{}", encoding="utf-8")
    assert run_fleet(manifest, Serial()).states == {"refused": 1, "fine": 1}
    assert set(inodes(tmp_path)) == {"a1", "untied"}


def test_one_that_is_gone_is_written_again_and_no_lora(tmp_path: Path) -> None:
    manifest = write_heads(tmp_path)
    run_fleet(manifest, Serial())
    before, whole = inodes(tmp_path), (tmp_path / "out" / "untied.gguf").read_bytes()
    (tmp_path / "out" / "untied.gguf").unlink()
    assert second_run(manifest) == ["a0", "a1", "a2", "a3"]
    assert (tmp_path / "out" / "untied.gguf").read_bytes() == whole
    after = inodes(tmp_path)
    assert {name for name in before if before[name] != after[name]} <= {"untied"}
    assert second_run(manifest) == []


@pytest.mark.parametrize("what", ["a byte", "another base"])
def test_one_that_is_another_is_refused(what: str, tmp_path: Path) -> None:
    """The control: a size and a header are not all that is looked at."""
    manifest = write_heads(tmp_path)
    run_fleet(manifest, Serial())
    untied = tmp_path / "out" / "untied.gguf"
    data = bytearray(untied.read_bytes())
    data[-100] ^= 1
    untied.write_bytes(data)
    if what == "another base":
        write_base(tmp_path / "base0.gguf", outtype="Q8_0")
    workers = Serial()
    result = run_fleet(manifest, workers)
    assert (result.status, result.states) == (COULD_NOT, {"failed": 4})
    assert f"{untied}: is " in workers.outcomes["a3"].message
    assert "not the untied copy of this base" in workers.outcomes["a3"].message


def test_bases_that_only_adapters_name_are_told_apart(tmp_path: Path) -> None:
    """Of two bases whose headers are the same: no row is served with the head of the other one's base."""
    manifest = write_heads(tmp_path, 2)
    other = bytearray((tmp_path / "base0.gguf").read_bytes())
    other[-1000] ^= 1
    (tmp_path / "base1.gguf").write_bytes(other)
    for number in range(2):
        config = tmp_path / f"a{number}" / "adapter_config.json"
        named = json.loads(config.read_bytes()) | {"base_model_name_or_path": f"{tmp_path}/base{number}.gguf"}
        config.write_text(json.dumps(named), encoding="utf-8")
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    write_manifest(manifest, [row | {"base": ""} for row in rows])
    workers = Serial()
    assert run_fleet(manifest, workers).states == {"fine": 1, "failed": 1}
    assert "not the untied copy of this base" in workers.outcomes["a1"].message


def test_one_that_is_replaced_under_way_is_told(tmp_path: Path) -> None:
    manifest = write_heads(tmp_path)

    def replace(task: Task) -> None:
        if task.row.adapter.name == "a1":
            untied = tmp_path / "out" / "untied.gguf"
            data = bytearray(untied.read_bytes())
            data[-100] ^= 1
            untied.write_bytes(data)
            os.utime(untied)

    result = run_fleet(manifest, Serial(after=replace))
    assert result.states == {"fine": 2, "failed": 2}


def test_it_is_read_whole_once_in_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_heads(tmp_path)
    read: list[Path] = []

    def compare(path: Path, write: Callable[[Sink], object]) -> None:
        read.append(path)
        refuse_different(path, write)

    monkeypatch.setattr("converter.conversion.written.refuse_different", compare)
    run_fleet(manifest, Serial())
    assert read == []
    for number in range(4):
        write_adapter(tmp_path / f"a{number}", 10 + number, with_head=True)
    assert second_run(manifest) == ["a0", "a1", "a2", "a3"]
    assert read == [tmp_path / "out" / "untied.gguf"]


def test_it_is_pushed_once(tmp_path: Path) -> None:
    manifest = write_heads(tmp_path / "fleet")
    times: set[int] = set()
    pushed = tmp_path / "store" / "out" / "untied.gguf"
    run_fleet(manifest, Serial(after=lambda _: times.add(pushed.stat().st_ino)), push=tmp_path / "store")
    assert len(times) == 1
    assert pushed.read_bytes() == (tmp_path / "fleet" / "out" / "untied.gguf").read_bytes()
    assert {path.stem for path in pushed.parent.iterdir()} == {"a0", "a1", "a2", "a3", "untied"}


def rows_of(tmp_path: Path, *rows: dict[str, object]) -> list[Row]:
    return list(read_manifest(write_manifest(tmp_path / "x.jsonl", rows), Defaults()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": "other.gguf"}, "which has another base or host; give each base one of its own"),
        ({"host": "grok"}, "which has another base or host"),
        ({"output": "u.gguf"}, "untied_base .*u.gguf is or lies in the output of"),
        ({"base": "u.gguf", "deployment": "lora", "untied_base": ""}, "base .*u.gguf is the output of"),
    ],
)
def test_two_rows_mean_the_same_file(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    row: dict[str, object] = {"adapter": "a", "base": "b.gguf", "deployment": "untie-lora", "untied_base": "u.gguf"}
    good = rows_of(tmp_path, row | {"output": "a.gguf"}, row | {"adapter": "c", "output": "c.gguf"})
    refuse_clashes(good)
    bad = rows_of(tmp_path, row | {"output": "a.gguf"}, row | {"adapter": "c", "output": "c.gguf"} | changes)
    with pytest.raises(ConverterError, match=message):
        refuse_clashes(bad)
