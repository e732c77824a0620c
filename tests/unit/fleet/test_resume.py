"""A second run does what isn't done, failed or has changed, and nothing else; a killed one loses nothing."""

import os
import shutil
from pathlib import Path

import pytest

from converter import Deployment, convert
from converter.conversion import plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.diagnostics import Quantize
from converter.errors import COULD_NOT, FINE, JUDGED_BAD, NOTHING_LOOKED_AT, ConverterError
from converter.fleet import resume, work
from converter.fleet.task import Task
from tests.unit.conversion import write_base
from tests.unit.fleet.small_fleet import Serial, rows_of, run_fleet, write_adapter, write_fleet, write_manifest

ALL = ["a0", "a2", "a1", "a3"]  # those of one base behind each other


class Killed(Exception):
    """What ends a run between two moments of an adapter."""


def outputs(manifest: Path) -> dict[str, tuple[int, int]]:
    """Which file each output is: one that was written again has another inode."""
    found = (manifest.parent / "out").glob("*.gguf")
    return {path.stem: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def second_run(manifest: Path) -> list[str]:
    workers = Serial()
    run_fleet(manifest, workers)
    return workers.did


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Of four adapters over two bases, all done."""
    path = write_fleet(tmp_path)
    workers = Serial()
    result = run_fleet(path, workers)
    assert (result.status, result.states, workers.did) == (FINE, {"fine": 4}, ALL)
    return path


def test_an_output_is_what_the_library_writes(manifest: Path) -> None:
    top = manifest.parent
    convert(top / "a1", top / "own.gguf", base=top / "base1.gguf")
    assert (top / "out" / "a1.gguf").read_bytes() == (top / "own.gguf").read_bytes()


def test_a_model_is_quantised_as_its_row_says(tmp_path: Path) -> None:
    manifest = write_fleet(tmp_path, 1, 1, quantize="q8_0")
    assert run_fleet(manifest, Serial()).states == {"fine": 1}
    deployment = Deployment("model", quantize=Quantize("Q8_0"))
    convert(tmp_path / "a0", tmp_path / "own.gguf", base=tmp_path / "base0.gguf", deployment=deployment)
    assert (tmp_path / "out" / "a0.gguf").read_bytes() == (tmp_path / "own.gguf").read_bytes()
    assert second_run(manifest) == []
    manifest.write_text(manifest.read_text(encoding="utf-8").replace('"q8_0"', '"IQ4_NL"'), encoding="utf-8")
    assert second_run(manifest) == ["a0"]


def test_each_option_of_quantising_is_a_column(tmp_path: Path) -> None:
    columns = {
        "quantize": "Q8_0", "tensor_type": "attn_v=q5_0 attn_k=F16", "output_tensor_type": "f16",
        "token_embedding_type": "q4_0", "allow_requantize": "true", "least_kept": "0",
    }  # fmt: skip
    manifest = write_fleet(tmp_path, 1, 1, **columns)
    assert run_fleet(manifest, Serial()).states == {"fine": 1}
    types = (("attn_v", "Q5_0"), ("attn_k", "F16"))
    quantize = Quantize("Q8_0", None, types, "F16", "Q4_0", allow_requantize=True, least_kept=0)
    deployment = Deployment("model", quantize=quantize)
    convert(tmp_path / "a0", tmp_path / "own.gguf", base=tmp_path / "base0.gguf", deployment=deployment)
    assert (tmp_path / "out" / "a0.gguf").read_bytes() == (tmp_path / "own.gguf").read_bytes()


def test_a_model_is_split_as_its_row_says(tmp_path: Path) -> None:
    """Into the files of adapter-to-gguf; where one of them is gone it is done again, and a killed run goes on."""
    manifest = write_fleet(tmp_path, 2, 1, deployment="model", split_max_size="20K")
    with pytest.raises(Killed):
        run_fleet(manifest, kill_at("a0"), push=tmp_path / "store")
    own = tmp_path / "own" / "a0.gguf"
    own.parent.mkdir()
    base = read_base_model(tmp_path / "base0.gguf")
    write(plan(read_adapter(tmp_path / "a0"), base, Deployment("model")), own, split_max_size=20_000)
    parts = sorted(own.parent.iterdir())
    assert len(parts) > 1
    before = outputs(manifest)
    workers = Serial()
    assert run_fleet(manifest, workers, push=tmp_path / "store").states == {"fine": 2}
    assert {name: at for name, at in outputs(manifest).items() if name.startswith("a0")} == before
    for part in parts:
        assert (tmp_path / "out" / part.name).read_bytes() == part.read_bytes()
        assert (tmp_path / "store" / "out" / part.name).read_bytes() == part.read_bytes()
    assert second_run_with_push(manifest, tmp_path / "store") == []
    (tmp_path / "out" / parts[1].name).unlink()
    assert second_run_with_push(manifest, tmp_path / "store") == ["a0"]


def test_a_row_has_a_checkpoint(tmp_path: Path) -> None:
    """It is told as adapter-to-gguf tells it: a GGUF with a table needs none. What isn't there fails its row alone."""
    manifest = write_fleet(tmp_path, 1, 1, deployment="model", checkpoint="checkpoint")
    assert run_fleet(manifest, Serial()).states == {"failed": 1}
    assert "checkpoint: can't be read: No such file or directory" in str(rows_of(tmp_path / "fleet.sqlite", "message"))
    (tmp_path / "checkpoint").mkdir()
    workers = Serial()
    assert run_fleet(manifest, workers).states == {"failed": 1}
    assert "has a table, which needs no --checkpoint" in workers.outcomes["a0"].message


def test_a_second_run_has_nothing_to_do(manifest: Path) -> None:
    before = outputs(manifest)
    workers = Serial()
    result = run_fleet(manifest, workers)
    assert (workers.did, result.states, result.n_finished_before) == ([], {"fine": 4}, 4)
    assert outputs(manifest) == before


def test_an_adapter_that_changed_is_done_again(manifest: Path) -> None:
    weights = manifest.parent / "a2" / "adapter_model.safetensors"
    before, times = outputs(manifest), weights.stat()
    write_adapter(manifest.parent / "a2", seed=99)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a copy that keeps times leaves it
    assert second_run(manifest) == ["a2"]
    after = outputs(manifest)
    assert {name for name in before if before[name] != after[name]} == {"a2"}
    assert second_run(manifest) == []


def test_an_adapter_that_was_only_touched_is_read_and_not_converted(manifest: Path) -> None:
    before = outputs(manifest)
    (manifest.parent / "a2" / "adapter_config.json").touch()
    workers = Serial()
    result = run_fleet(manifest, workers)
    assert (workers.did, workers.outcomes["a2"].unchanged, result.states) == (["a2"], True, {"fine": 4})
    assert outputs(manifest) == before
    assert second_run(manifest) == []


def test_a_base_that_changed_changes_all_adapters_on_it(manifest: Path) -> None:
    (manifest.parent / "base1.gguf").touch()
    assert second_run(manifest) == ["a1", "a3"]
    assert second_run(manifest) == []


def test_another_version_of_the_tool_does_all_again(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "__version__", "99.0")
    monkeypatch.setattr(work, "__version__", "99.0")
    assert second_run(manifest) == ALL


def test_another_deployment_is_done(manifest: Path) -> None:
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace('"a3"', '"a3", "deployment": "model"'), encoding="utf-8")
    assert second_run(manifest) == ["a3"]


def test_a_node_with_another_version_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_fleet(tmp_path, 1)
    monkeypatch.setattr(work, "__version__", "99.0")
    workers = Serial()
    assert run_fleet(manifest, workers).states == {"failed": 1}
    assert "this node has adapter-to-gguf 99.0, the driver" in workers.outcomes["a0"].message
    assert outputs(manifest) == {}


@pytest.mark.parametrize("how", ["gone", "other"])
def test_an_output_that_isnt_there_is_made_again(how: str, manifest: Path) -> None:
    path = manifest.parent / "out" / "a0.gguf"
    whole = path.read_bytes()
    path.unlink()
    if how == "other":
        path.write_bytes(whole[:-1] + b"x")
    assert second_run(manifest) == ["a0"]
    assert path.read_bytes() == whole


def test_a_refusal_stands_until_the_adapter_changes(tmp_path: Path) -> None:
    manifest = write_fleet(tmp_path, 1)
    write_adapter(tmp_path / "a0", with_head=True)
    result = run_fleet(manifest, workers := Serial())
    assert (result.status, result.states) == (JUDGED_BAD, {"refused": 1})
    assert workers.outcomes["a0"].codes == ("HD001",)
    assert second_run(manifest) == []
    write_adapter(tmp_path / "a0")
    assert run_fleet(manifest, Serial()).states == {"fine": 1}


def test_what_could_not_be_done_is_tried_again(tmp_path: Path) -> None:
    manifest = write_fleet(tmp_path, 3)
    (tmp_path / "out").write_text("no directory", encoding="utf-8")
    shutil.rmtree(tmp_path / "a2")
    result = run_fleet(manifest, Serial())
    assert (result.status, result.states) == (COULD_NOT, {"failed": 2, "missing": 1})
    (tmp_path / "out").unlink()
    result = run_fleet(manifest, Serial())
    assert (result.status, result.states) == (NOTHING_LOOKED_AT, {"fine": 2, "missing": 1})


def test_a_link_in_a_circle_is_no_adapter_that_is_missing(tmp_path: Path) -> None:
    manifest = write_fleet(tmp_path, 2)
    shutil.rmtree(tmp_path / "a1")
    (tmp_path / "a1").symlink_to("a1")
    workers = Serial()
    result = run_fleet(manifest, workers)
    assert (result.status, result.states, workers.did) == (COULD_NOT, {"fine": 1, "failed": 1}, ["a0"])


def test_a_base_that_isnt_there_fails_its_adapters_alone(tmp_path: Path) -> None:
    manifest = write_fleet(tmp_path, 2)
    (tmp_path / "base1.gguf").unlink()
    result = run_fleet(manifest, Serial())
    assert (result.status, result.states) == (COULD_NOT, {"fine": 1, "failed": 1})


def test_a_base_that_changes_under_way_is_told(tmp_path: Path) -> None:
    """Two adapters would else stand in the table as made from one base."""
    manifest = write_fleet(tmp_path, 2, n_bases=1)

    def write_another(_: Task) -> None:
        write_base(tmp_path / "base0.gguf", outtype="Q8_0")

    workers = Serial(after=write_another)
    result = run_fleet(manifest, workers)
    assert result.states == {"fine": 1, "failed": 1}
    assert "base0.gguf: was changed while the fleet was under way" in workers.outcomes["a1"].message


def kill_at(name: str) -> "Serial":
    def kill(task: Task) -> None:
        if task.row.adapter.name == name:
            raise Killed

    return Serial(after=kill)


@pytest.mark.parametrize("deployment", ["lora", "model", "untie-lora", "untie-model"])
def test_what_was_written_and_not_noted_down_isnt_written_again(deployment: str, tmp_path: Path) -> None:
    """The driver dies between an output and its row in the table."""
    manifest = write_fleet(tmp_path, 2, 1, deployment=deployment)
    with pytest.raises(Killed):
        run_fleet(manifest, kill_at("a0"))
    files = sorted((tmp_path / "out").rglob("*.gguf"))
    before = [path.stat().st_ino for path in files if path.stem != "a1"]
    workers = Serial()
    assert run_fleet(manifest, workers).states == {"fine": 2}
    assert [path.stat().st_ino for path in files if path.stem != "a1"] == before != []
    assert (workers.outcomes["a0"].adopted, workers.outcomes["a1"].adopted) == (True, False)
    assert second_run(manifest) == []


def test_what_was_written_from_another_base_is_no_output_of_this_run(tmp_path: Path) -> None:
    """Its header would be the same: a base's norms, and so its fingerprint, don't change with its matrices."""
    manifest = write_fleet(tmp_path, 1, 1, deployment="model")
    with pytest.raises(Killed):
        run_fleet(manifest, kill_at("a0"))
    data = bytearray((tmp_path / "base0.gguf").read_bytes())
    data[-1000] ^= 1
    (tmp_path / "base0.gguf").write_bytes(data)
    workers = Serial()
    run_fleet(manifest, workers)
    assert not workers.outcomes["a0"].adopted
    convert(tmp_path / "a0", tmp_path / "own.gguf", base=tmp_path / "base0.gguf", deployment=Deployment("model"))
    assert (tmp_path / "out" / "a0.gguf").read_bytes() == (tmp_path / "own.gguf").read_bytes()


def test_what_was_there_before_the_run_isnt_taken_for_its_output(tmp_path: Path) -> None:
    manifest = write_fleet(tmp_path, 1)
    (tmp_path / "out").mkdir()
    convert(tmp_path / "a0", tmp_path / "out" / "a0.gguf", base=tmp_path / "base0.gguf")
    workers = Serial()
    run_fleet(manifest, workers)
    assert not workers.outcomes["a0"].adopted


def test_two_drivers_never_share_a_table(manifest: Path) -> None:
    def run_another(_: Task) -> None:
        run_fleet(manifest, Serial())

    (manifest.parent / "base0.gguf").touch()
    with pytest.raises(ConverterError, match="another adapter-fleet writes this table"):
        run_fleet(manifest, Serial(before=run_another))


def test_a_table_of_something_else_stays_as_it_is(tmp_path: Path) -> None:
    import sqlite3

    manifest = write_fleet(tmp_path, 1)
    with sqlite3.connect(tmp_path / "fleet.sqlite") as connection:
        connection.execute("CREATE TABLE notes (text)")
    connection.close()
    before = (tmp_path / "fleet.sqlite").read_bytes()
    with pytest.raises(ConverterError, match=r"fleet.sqlite: is a database of something else; give another --table"):
        run_fleet(manifest, Serial())
    assert (tmp_path / "fleet.sqlite").read_bytes() == before
    (tmp_path / "fleet.sqlite").write_text("no database, and long enough not to be empty" * 30, encoding="utf-8")
    with pytest.raises(ConverterError, match="can't be used as a table: file is not a database"):
        run_fleet(manifest, Serial())


def test_each_output_that_is_fine_is_pushed(tmp_path: Path) -> None:
    manifest = write_fleet(tmp_path / "fleet", 3)
    write_adapter(tmp_path / "fleet" / "a1", with_head=True)
    run_fleet(manifest, Serial(), push=tmp_path / "store")
    pushed = {path.name: path.read_bytes() for path in (tmp_path / "store" / "out").iterdir()}
    assert pushed == {name: (manifest.parent / "out" / name).read_bytes() for name in ("a0.gguf", "a2.gguf")}
    assert second_run_with_push(manifest, tmp_path / "other") == ["a0", "a2", "a1"]


def test_what_only_the_push_failed_is_not_converted_again(tmp_path: Path) -> None:
    manifest = write_fleet(tmp_path / "fleet", 2, 1)
    (tmp_path / "store").write_text("no directory", encoding="utf-8")
    assert run_fleet(manifest, Serial(), push=tmp_path / "store").states == {"failed": 2}
    before = outputs(manifest)
    convert(manifest.parent / "a1", manifest.parent / "out" / "a1.gguf", base=manifest.parent / "base0.gguf")
    (tmp_path / "store").unlink()
    workers = Serial()
    assert run_fleet(manifest, workers, push=tmp_path / "store").states == {"fine": 2}
    assert (workers.outcomes["a0"].adopted, workers.outcomes["a1"].adopted) == (True, False), "a1 is somebody else's"
    assert outputs(manifest)["a0"] == before["a0"]
    assert {path.name for path in (tmp_path / "store" / "out").iterdir()} == {"a0.gguf", "a1.gguf"}


def second_run_with_push(manifest: Path, push: Path) -> list[str]:
    workers = Serial()
    run_fleet(manifest, workers, push=push)
    return workers.did


def test_a_push_has_a_place_for_each_output(tmp_path: Path) -> None:
    write_fleet(tmp_path / "fleet", 1)
    manifest = write_manifest(tmp_path / "fleet" / "fleet.jsonl", [{"adapter": "a0", "output": "../x.gguf"}])
    with pytest.raises(ConverterError, match="so a push has no place for it"):
        run_fleet(manifest, Serial(), push=tmp_path / "store")


def test_outputs_and_the_table_may_lie_beside_the_adapter(tmp_path: Path) -> None:
    write_fleet(tmp_path, 1)
    row: dict[str, object] = {"adapter": "../a0", "base": "../base0.gguf", "output": "a0.gguf"}
    manifest = write_manifest(tmp_path / "a0" / "fleet.jsonl", [row])
    run_fleet(manifest, Serial())
    assert second_run(manifest) == []
