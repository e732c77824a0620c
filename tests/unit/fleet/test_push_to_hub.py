"""Outputs pushed to a hub by the real huggingface_hub: each once, whole, seen there, and no word of the token."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from converter.errors import COULD_NOT, FINE, ConverterError
from converter.fleet.manifest import Defaults, read_manifest
from converter.fleet.task import Task
from converter.hub import uploads
from converter.read.hub_address import hub_address
from fixtures.hub import Handler
from fixtures.writable_hub import WritableHandler, WritableHub, answered
from tests.unit.fleet.small_fleet import (
    Serial,
    hub_of_this_process,
    rows_of,
    run_fleet,
    write_adapter,
    write_fleet,
    write_manifest,
)

# huggingface_hub gives httpx2 a file as data where that wants content.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
TO = hub_address("hf://org/name/served")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    with hub_of_this_process(monkeypatch) as hub:
        monkeypatch.setattr(uploads, "_WAITS", (0.01, 0.01))
        yield hub


def pushed(manifest: Path) -> list[str]:
    return [str(value) for (value,) in rows_of(manifest.with_suffix(".sqlite"), "pushed")]


def outputs(manifest: Path) -> dict[str, bytes]:
    return {f"served/out/{path.name}": path.read_bytes() for path in (manifest.parent / "out").glob("*.gguf")}


def test_each_output_that_is_fine_lies_on_the_hub(hub: WritableHub, tmp_path: Path) -> None:
    manifest = write_fleet(tmp_path, 4)
    write_adapter(tmp_path / "a1", with_head=True)
    assert run_fleet(manifest, Serial(), push=TO).states == {"fine": 3, "refused": 1}
    assert hub.head == outputs(manifest)
    assert len(hub.head) == 3
    last = hub.commit_id(len(hub.commits))
    places = pushed(manifest)
    assert (places[1], places[3]) == ("None", f"hf://org/name@{last}/served/out/a3.gguf")
    assert all(place.startswith("hf://org/name@0") for place in (places[0], places[2]))


def test_what_is_pushed_isnt_pushed_again(hub: WritableHub, tmp_path: Path) -> None:
    """A second run with nothing to do asks no hub; of one more adapter it sends that one alone."""
    manifest = write_fleet(tmp_path, 3)
    run_fleet(manifest, Serial(), push=TO)
    n_requests, n_uploads = len(hub.requests), len(hub.uploads)
    assert run_fleet(manifest, Serial(), push=TO).n_finished_before == 3
    assert len(hub.requests) == n_requests
    write_adapter(tmp_path / "a1", 99)
    workers = Serial()
    assert run_fleet(manifest, workers, push=TO).states == {"fine": 3}
    assert (workers.did, len(hub.uploads)) == (["a1"], n_uploads + 1)
    assert hub.head == outputs(manifest)


def test_outputs_that_come_together_are_one_commit(hub: WritableHub, tmp_path: Path) -> None:
    """The first one goes at once, to tell early what is wrong; the others when there are no more."""
    run_fleet(write_fleet(tmp_path, 6), Serial(), push=TO)
    assert 1 <= len(hub.commits) <= 2


def test_a_manifest_says_where_each_goes(hub: WritableHub, tmp_path: Path) -> None:
    manifest = write_fleet(tmp_path, 3)
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    write_manifest(manifest, [rows[0] | {"push": "hf://org/name"}, rows[1] | {"push": "store"}, rows[2]])
    assert run_fleet(manifest, Serial()).states == {"fine": 3}
    assert list(hub.head) == ["out/a0.gguf"]
    assert [path.name for path in (tmp_path / "store" / "out").iterdir()] == ["a1.gguf"]
    assert pushed(manifest)[1:] == [f"{tmp_path}/store/out/a1.gguf", "None"]


@pytest.mark.parametrize(("push", "message"), [("hf://org", "'push': hf://org: is no"), ("s3://x/y", "wanted a path")])
def test_a_place_is_an_address_or_a_path(push: str, message: str, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "x.jsonl", [{"adapter": "a", "output": "o", "push": push}])
    with pytest.raises(ConverterError, match=message):
        list(read_manifest(manifest, Defaults()))


def test_all_files_of_an_output_go_and_an_untied_base_once(hub: WritableHub, tmp_path: Path) -> None:
    """A model in parts, a directory of two files, and LoRAs that have one untied base; large files in parts."""
    hub.part_nbytes = 10_000
    write_fleet(tmp_path, 4, 1)
    shared = {"deployment": "untie-lora", "untied_base": "out/untied.gguf"}
    rows: list[dict[str, object]] = [
        {"output": "out/a0.gguf", "deployment": "model", "split_max_size": "20K"},
        {"output": "out/two", "deployment": "untie-lora"},
        {"output": "out/a2.gguf", **shared},
        {"output": "out/a3.gguf", **shared},
    ]
    named = [row | {"adapter": f"a{number}", "base": "base0.gguf"} for number, row in enumerate(rows)]
    manifest = write_manifest(tmp_path / "fleet.jsonl", named)
    assert run_fleet(manifest, Serial(), push=TO).states == {"fine": 4}, rows_of(tmp_path / "fleet.sqlite", "message")
    files = {path.relative_to(tmp_path).as_posix(): path for path in (tmp_path / "out").rglob("*.gguf")}
    assert hub.head == {f"served/{name}": path.read_bytes() for name, path in files.items()}
    assert {"served/out/untied.gguf", "served/out/two/lora.gguf", "served/out/a0-00001-of-00004.gguf"} <= set(hub.head)
    assert len(hub.uploads) <= len(set(hub.uploads)) + 1, "huggingface_hub sends equal files of one commit twice"


def refuse(status: int, code: str = "") -> "object":
    def fault(handler: Handler) -> None:
        handler.send(status, str(handler.headers.get("Authorization")).encode(), {"X-Error-Code": code})

    return fault


@pytest.mark.parametrize(
    ("part", "status", "message"),
    [
        pytest.param("/preupload/", 403, "may not write there (status 403)", marks=pytest.mark.thorough),
        pytest.param("/lfs/objects/batch", 400, "the hub refuses it (status 400)", marks=pytest.mark.thorough),
        ("/lfs/0", 403, "this token may not write there (status 403)"),
        ("/commit/", 429, "takes no more requests for now (status 429); run it again later"),
        pytest.param("/commit/", 413, "the hub refuses it (status 413)", marks=pytest.mark.thorough),
        pytest.param("/paths-info/", 404, "there is no such repository", marks=pytest.mark.thorough),
    ],
)
def test_what_wasnt_pushed_is_pushed_by_the_next_run(
    part: str, status: int, message: str, hub: WritableHub, tmp_path: Path
) -> None:
    manifest = write_fleet(tmp_path, 2, 1)
    hub.faults["/lfs/" if part == "/lfs/0" else part] = refuse(status)  # type: ignore[assignment]
    result = run_fleet(manifest, Serial(), push=TO)
    assert (result.status, result.states) == (COULD_NOT, {"failed": 2})
    told = str(rows_of(manifest.with_suffix(".sqlite"), "message"))
    assert message in told
    assert "a0.gguf: not pushed: hf://org/name@main: " in told
    hub.faults.clear()
    before = {path: path.stat().st_ino for path in (tmp_path / "out").iterdir()}
    assert run_fleet(manifest, Serial(), push=TO).status == FINE
    assert {path: path.stat().st_ino for path in (tmp_path / "out").iterdir()} == before, "nothing is converted again"
    assert hub.head == outputs(manifest)


def test_a_commit_whose_answer_is_lost_is_no_second_commit(hub: WritableHub, tmp_path: Path) -> None:
    manifest = write_fleet(tmp_path, 1, 1)

    def cut(handler: WritableHandler) -> None:
        hub.faults.clear()
        handler.answer_json = lambda *_: handler.connection.shutdown(socket.SHUT_RDWR)  # type: ignore[method-assign]
        answered(handler)

    hub.faults["/commit/"] = cut  # type: ignore[assignment]
    assert run_fleet(manifest, Serial(), push=TO).states == {"fine": 1}
    assert (len(hub.commits), len(hub.uploads)) == (1, 1)
    assert pushed(manifest) == [f"hf://org/name@{hub.commit_id(1)}/served/out/a0.gguf"]


class Killed(Exception):
    """What ends a run between a commit and its row in the table."""


def test_a_push_whose_end_nobody_noted_is_repeated_and_changes_nothing(hub: WritableHub, tmp_path: Path) -> None:
    manifest = write_fleet(tmp_path, 3, 1)

    def kill(_: Task) -> None:
        until = time.monotonic() + 20
        while not hub.commits and time.monotonic() < until:
            time.sleep(0.01)
        raise Killed

    with pytest.raises(Killed):
        run_fleet(manifest, Serial(before=lambda task: kill(task) if task.row.adapter.name == "a1" else None), push=TO)
    assert rows_of(manifest.with_suffix(".sqlite")) == []
    (first,) = hub.commits
    workers = Serial()
    assert run_fleet(manifest, workers, push=TO).states == {"fine": 3}
    assert workers.outcomes["a0"].adopted
    assert hub.head == outputs(manifest)
    assert hub.head.items() >= first.items()
    assert len(hub.uploads) == len(set(hub.uploads)) == 3


def test_what_a_gitignore_keeps_out_wasnt_pushed(hub: WritableHub, tmp_path: Path) -> None:
    """huggingface_hub leaves such a file out of its commit, and says nothing."""
    hub.ignored = frozenset({"served/out/a0.gguf"})
    manifest = write_fleet(tmp_path, 1, 1)
    assert run_fleet(manifest, Serial(), push=TO).states == {"failed": 1}
    assert "was pushed, and isn't there" in str(rows_of(manifest.with_suffix(".sqlite"), "message"))


def test_what_another_wrote_in_its_place_is_told(hub: WritableHub, tmp_path: Path) -> None:
    def overwrite(handler: WritableHandler) -> None:
        hub.commits[-1]["served/out/a0.gguf"] = b"x" * 5_000
        answered(handler)

    hub.faults["/paths-info/"] = overwrite  # type: ignore[assignment]
    manifest = write_fleet(tmp_path, 1, 1)
    assert run_fleet(manifest, Serial(), push=TO).states == {"failed": 1}
    assert "was pushed, and is another file there" in str(rows_of(manifest.with_suffix(".sqlite"), "message"))


@pytest.mark.parametrize(
    ("change", "address", "message"),
    [
        ({"may_write": False}, "hf://org/name", "this token may not write there (status 403)"),
        ({"repository": "org/other"}, "hf://org/name", "there is no such repository"),
        ({}, "hf://org/name@v2", "the repository has no branch 'v2'; make it first"),
        ({}, f"hf://org/name@{'0' * 40}", "is at a commit; wanted the name of a branch"),
        ({"token": "hf_other"}, "hf://org/name", "this token may not write there (status 401)"),
    ],
)
def test_a_hub_that_cant_be_written_to_is_told_first(
    change: dict[str, object], address: str, message: str, hub: WritableHub, tmp_path: Path
) -> None:
    for name, value in change.items():
        setattr(hub, name, value)
    workers = Serial()
    with pytest.raises(ConverterError) as caught:
        run_fleet(write_fleet(tmp_path, 1), workers, push=hub_address(address))
    assert message in str(caught.value)
    assert workers.did == []


@pytest.mark.parametrize(("name", "message"), [("HF_HUB_OFFLINE", "HF_HUB_OFFLINE is set"), ("", "takes a token")])
def test_without_a_network_or_a_token_nothing_starts(
    name: str, message: str, hub: WritableHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", name == "HF_HUB_OFFLINE")
    with pytest.raises(ConverterError, match=message):
        run_fleet(write_fleet(tmp_path, 1), Serial(), push=TO)
    assert hub.requests == []


def test_the_token_is_nowhere_but_at_the_hub(
    hub: WritableHub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not in the table, whatever the hub says of it; not on stdout or stderr; and the storage doesn't get it."""
    manifest = write_fleet(tmp_path, 2, 1)
    hub.faults["/commit/"] = refuse(403)  # type: ignore[assignment]
    run_fleet(manifest, Serial(), push=TO)
    hub.faults.clear()
    run_fleet(manifest, Serial(), push=TO)
    told = "".join(capfd.readouterr())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert str(hub.token) not in told
    assert [path for path in files if str(hub.token).encode() in path.read_bytes()] == []
    assert "secret" not in str(rows_of(manifest.with_suffix(".sqlite"), "*"))
    by_host = {host: [it for it in hub.requests if f"http://{it.host}" == host] for host in (hub.endpoint, hub.storage)}
    assert all("authorization" in it.headers for it in by_host[hub.endpoint] if "verify" not in it.target)
    assert by_host[hub.storage] != []
    assert not any("authorization" in it.headers for it in by_host[hub.storage])


def test_a_hub_that_stalls_ends_with_the_run(hub: WritableHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub's own client would wait for ever."""
    monkeypatch.setattr(uploads, "_SECONDS", 0.3)
    monkeypatch.setattr(uploads, "_WAITS", ())
    hub.faults["/commit/"] = lambda _: time.sleep(3)
    manifest = write_fleet(tmp_path, 1, 1)
    begin = time.monotonic()
    assert run_fleet(manifest, Serial(), push=TO).states == {"failed": 1}
    assert time.monotonic() - begin < 3
    assert "the connection to the hub broke (ReadTimeout)" in str(rows_of(manifest.with_suffix(".sqlite"), "message"))


@pytest.mark.timeout(60)
def test_an_error_of_ours_ends_its_rows_and_not_the_run(
    hub: WritableHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_is_same", None)
    manifest = write_fleet(tmp_path, 2, 1)
    assert run_fleet(manifest, Serial(), push=TO).states == {"failed": 2}
    assert "couldn't be pushed (TypeError)" in str(rows_of(manifest.with_suffix(".sqlite"), "message"))
    monkeypatch.setattr(uploads, "_why", None)
    assert run_fleet(manifest, Serial(), push=TO).states == {"failed": 2}
    assert "TypeError: an error of ours; please report it" in str(rows_of(manifest.with_suffix(".sqlite"), "message"))
    assert len(hub.uploads) == 2
