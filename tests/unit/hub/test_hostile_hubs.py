"""Hubs that are wrong, break off, lie or never end: one clear line, status 2, soon, and nothing left behind."""

import gzip
import json
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.hub import COMMIT, FakeHub, Handler, send_file, serving
from tests.rules.specimens import Specimen
from tests.unit.hub.commands import ADDRESS, Ran, check, check_apart, started

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


@pytest.fixture
def hub(specimen: Specimen) -> Iterator[FakeHub]:
    with serving(FakeHub({CONFIG: specimen.config_path, WEIGHTS: specimen.weights})) as it:
        yield it


def line_of(hub: FakeHub, tmp_path: Path, address: str = ADDRESS, token: str | None = None, timeout: float = 10) -> str:
    """The one line that a refusal is."""
    return the_line(check(hub, tmp_path, address, token=token, timeout=timeout), address)


def the_line(ran: Ran, address: str = ADDRESS) -> str:
    assert (ran.status, ran.stdout, len(ran.lines)) == (2, "", 1), ran
    assert ran.stderr.startswith(f"adapter-check: {address}")
    assert "an error of ours" not in ran.stderr
    return ran.stderr


def test_this_hub_is_fine_without_a_fault(hub: FakeHub, specimen: Specimen, tmp_path: Path) -> None:
    ran = check(hub, tmp_path, ADDRESS, "--base", specimen.base)
    assert (ran.status, ran.stderr) == (0, "")


# --- What isn't there, or may not be seen -----------------------------------------------------------------------------


def test_what_is_not_there(hub: FakeHub, tmp_path: Path) -> None:
    assert "is not there, or is private" in line_of(hub, tmp_path, "hf://org/other")
    assert "no revision 'v9'" in line_of(hub, tmp_path, f"{ADDRESS}@v9")
    assert "is not there at this revision" in line_of(hub, tmp_path, f"{ADDRESS}@main/sub")


def test_a_gated_repository_says_where_to_ask(hub: FakeHub, tmp_path: Path) -> None:
    hub.is_gated = True
    assert f"is gated; ask for access at {hub.endpoint}/org/name with an account, and give" in line_of(hub, tmp_path)
    line = line_of(hub, tmp_path, token="hf_abc")  # noqa: S106  none
    assert f"ask for access at {hub.endpoint}/org/name with the account of this token" in line


@pytest.mark.parametrize(
    ("status", "said"), [(429, "takes no more requests"), (503, "has a fault of its own"), (418, "status 418")]
)
def test_other_statuses(hub: FakeHub, tmp_path: Path, status: int, said: str) -> None:
    hub.faults["/revision/"] = lambda handler: handler.send(status)
    assert said in line_of(hub, tmp_path)


def test_a_storage_that_refuses_is_named_without_what_was_signed(hub: FakeHub, tmp_path: Path) -> None:
    hub.large = frozenset({WEIGHTS})
    hub.faults["/storage/"] = lambda handler: handler.send(403)
    line = line_of(hub, tmp_path)
    assert "the storage of the hub, 127.0.0.1, answers with status 403" in line
    assert "secret" not in line


def test_nobody_listens(specimen: Specimen, tmp_path: Path) -> None:
    with serving(FakeHub({CONFIG: specimen.config_path})) as gone:
        pass
    assert f"{gone.endpoint} can't be reached" in line_of(gone, tmp_path)


@pytest.mark.parametrize(
    "endpoint", ["nonsense", "ftp://127.0.0.1", "http://", "http://[::1", "http://127.0.0.1:99999"]
)
def test_an_endpoint_that_is_none(hub: FakeHub, tmp_path: Path, endpoint: str) -> None:
    the_line(check_apart(hub, tmp_path, ADDRESS, HF_ENDPOINT=endpoint))


@pytest.mark.parametrize(
    "address",
    [
        "hf://", "hf://name", "hf://org/../x", "hf://datasets/org/name", "hf://org/name@", "hf://org/name@a%00b",
        "hf://org/name@main/../..", "hf://org/name/a//b", "hf://or g/name", "hf://org/na--me", "hf:///etc/passwd",
    ],
)  # fmt: skip
def test_an_address_that_is_none_asks_nobody(hub: FakeHub, tmp_path: Path, address: str) -> None:
    line_of(hub, tmp_path, address)
    assert hub.requests == []


@pytest.mark.parametrize("token", ["hf_\u00e4", "hf_a\x1bb"])
def test_a_token_that_is_none_is_not_printed(hub: FakeHub, tmp_path: Path, token: str) -> None:
    assert "hf_" not in line_of(hub, tmp_path, token=token)
    assert hub.requests == []


# --- Parts of files ---------------------------------------------------------------------------------------------------


def sparse(tmp_path: Path) -> Path:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write((100).to_bytes(8, "little"))
        file.truncate(700_000_000)
    return path


def whole(handler: Handler) -> None:
    """As a server does that knows no Range."""
    nbytes = handler.hub.size(WEIGHTS)
    handler.start(200, {"Content-Length": str(nbytes)})
    for _ in range(nbytes // 100_000):
        if handler.close_connection:
            return
        handler.body(bytes(100_000))


def test_a_server_that_ignores_range_is_left(hub: FakeHub, tmp_path: Path) -> None:
    hub.files[WEIGHTS] = sparse(tmp_path)
    hub.faults[f"resolve/{COMMIT}/{WEIGHTS}"] = whole
    assert "wanted 206" in line_of(hub, tmp_path)
    assert hub.n_sent < 20_000_000  # what lay in the buffers of the system


def _range(content_range: str, n_sent: int | None = None) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        size = handler.hub.size(WEIGHTS)
        headers = {"Content-Range": content_range.format(last=size - 1, size=size, more=size + 1)}
        handler.send(206, bytes(size if n_sent is None else n_sent), headers if content_range else {})

    return answer


@pytest.mark.parametrize(
    "stated",
    [
        "", "bytes 0-{last}/{more}", "bytes 1-{last}/{size}", "bytes 0-{size}/{size}", "bytes 0-{last}/*",
        "bytes */{size}", "items 0-{last}/{size}", "bytes 0-{last}/{size}, bytes 0-1/{size}",
    ],
)  # fmt: skip
def test_a_part_that_was_not_asked_for_is_not_read(hub: FakeHub, tmp_path: Path, stated: str) -> None:
    hub.faults[f"resolve/{COMMIT}/{WEIGHTS}"] = _range(stated)
    assert "answered with the part" in line_of(hub, tmp_path)


@pytest.mark.parametrize("n_sent", [10, 1_000_000])
def test_a_part_of_another_length(hub: FakeHub, tmp_path: Path, n_sent: int) -> None:
    hub.faults[f"resolve/{COMMIT}/{WEIGHTS}"] = _range("bytes 0-{last}/{size}", n_sent)
    assert f"the hub sends {n_sent} bytes, wanted" in line_of(hub, tmp_path)


def cut(handler: Handler) -> None:
    """Half of an answer, then nothing."""
    name = CONFIG if CONFIG in handler.path else WEIGHTS
    size = handler.hub.size(name)
    handler.start(206 if name == WEIGHTS else 200, {"Content-Length": str(size), **_whole_range(name, size)})
    handler.body(handler.hub.read(name, 0, size // 2))
    handler.close_connection = True


def _whole_range(name: str, size: int) -> dict[str, str]:
    return {"Content-Range": f"bytes 0-{size - 1}/{size}"} if name == WEIGHTS else {}


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_connection_that_is_cut(hub: FakeHub, tmp_path: Path, name: str) -> None:
    hub.faults[f"resolve/{COMMIT}/{name}"] = cut
    assert "the connection to the hub broke" in line_of(hub, tmp_path)


def test_a_connection_that_is_cut_before_its_head(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults["/tree/"] = lambda handler: setattr(handler, "close_connection", True)
    assert "the connection to the hub broke" in line_of(hub, tmp_path)


# --- Other bytes than the hub listed ----------------------------------------------------------------------------------


def test_a_file_of_another_commit(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults[f"resolve/{COMMIT}/{CONFIG}"] = lambda handler: send_file(handler, CONFIG, {"X-Repo-Commit": "f" * 40})
    assert "answered with the commit 'ffff" in line_of(hub, tmp_path)


def test_a_size_that_changes_behind_the_list(hub: FakeHub, tmp_path: Path) -> None:
    headers = {"X-Linked-Size": "5", "Location": "/storage/x", "X-Repo-Commit": COMMIT}
    hub.faults[f"resolve/{COMMIT}/{WEIGHTS}"] = lambda handler: handler.send(302, b"", headers)
    assert "says that it has 5 bytes" in line_of(hub, tmp_path)


@pytest.mark.parametrize("sha", [None, "main", "../../x", 7, "A" * 40])
def test_a_commit_that_is_none(hub: FakeHub, tmp_path: Path, sha: object) -> None:
    hub.faults["/revision/"] = lambda handler: handler.send(200, json.dumps({"sha": sha}).encode())
    assert "wanted 40 hexadecimal digits" in line_of(hub, tmp_path)


def test_another_commit_than_the_one_asked_for(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults["/revision/"] = lambda handler: handler.send(200, json.dumps({"sha": "f" * 40}).encode())
    assert "answered with another commit" in line_of(hub, tmp_path, f"{ADDRESS}@{COMMIT}")


# --- Lists ------------------------------------------------------------------------------------------------------------


def entry(path: object, size: object = 1) -> dict[str, object]:
    return {"type": "file", "path": path, "size": size, "oid": "0"}


def listing(*entries: object) -> Callable[[Handler], None]:
    return lambda handler: handler.send(200, json.dumps(entries).encode())


@pytest.mark.parametrize(
    "name",
    [
        "../adapter_config.json", "/etc/adapter_config.json", "a/../../adapter_config.json", "a//adapter_config.json",
        "c:\\adapter_model.bin", "x\x00/adapter_config.json", "x\n/adapter_config.json",
        "a" * 300 + "/adapter_model.bin",
        "..\\x.pt", "x\x1b.bin", "\ud800.bin",
    ],
)  # fmt: skip
def test_impossible_names_are_refused(hub: FakeHub, tmp_path: Path, name: str) -> None:
    before = {*tmp_path.rglob("*")}
    hub.faults["/tree/"] = listing(entry(CONFIG, hub.size(CONFIG)), entry(WEIGHTS, hub.size(WEIGHTS)), entry(name))
    hub.files[name] = b"x"
    assert "impossible name" in line_of(hub, tmp_path)
    assert {*tmp_path.rglob("*")} - before <= {tmp_path / "home", tmp_path / "scratch"}


@pytest.mark.parametrize(
    "bad",
    [entry(CONFIG, -1), entry(CONFIG, "7"), entry(CONFIG, None), entry(7), entry(CONFIG, True) | {"type": "x"}, "x", 7],
)
def test_entries_that_are_none(hub: FakeHub, tmp_path: Path, bad: object) -> None:
    hub.faults["/tree/"] = listing(bad)
    assert "which isn't understood" in line_of(hub, tmp_path)


@pytest.mark.parametrize("body", [b"", b"{}", b"[", b"\xff", b"[" * 100_000, b"<html>"])
def test_lists_that_are_none(hub: FakeHub, tmp_path: Path, body: bytes) -> None:
    hub.faults["/tree/"] = lambda handler: handler.send(200, body)
    assert "list of files" in line_of(hub, tmp_path)


def test_a_file_where_a_folder_is(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults["/tree/"] = listing(entry(CONFIG), entry(f"{CONFIG}/{CONFIG}"))
    line_of(hub, tmp_path)


def test_a_list_without_end(hub: FakeHub, tmp_path: Path) -> None:
    def page(handler: Handler) -> None:
        n = len(hub.requests)
        entries = [entry(f"{n}/{i}.txt") for i in range(1000)]
        handler.send(200, json.dumps(entries).encode(), {"Link": f'<http://x/?cursor={n}>; rel="next"'})

    hub.faults["/tree/"] = page
    assert "holds more than 10000 files" in line_of(hub, tmp_path)
    assert len(hub.requests) < 15


def test_a_list_of_empty_pages_ends(hub: FakeHub, tmp_path: Path) -> None:
    link = {"Link": '<http://x/?cursor=1>; rel="next"'}
    hub.faults["/tree/"] = lambda handler: handler.send(200, b"[]", link)
    assert check(hub, tmp_path, ADDRESS).status == 3


def test_a_deep_list_is_no_tree_of_ours(hub: FakeHub, tmp_path: Path) -> None:
    deep = "a/" * 1900 + CONFIG
    hub.faults["/tree/"] = listing(*(entry(f"{n}/{deep}") for n in range(1000)))
    began = time.monotonic()
    assert check(hub, tmp_path, ADDRESS).status == 3
    assert time.monotonic() - began < 10


def test_a_file_beyond_its_limit_is_not_fetched(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults["/tree/"] = listing(entry(CONFIG, 3_000_000))
    assert "has 3000000 bytes there (at most 2000000 are read)" in line_of(hub, tmp_path)
    assert not any("resolve" in request.target for request in hub.requests)


def test_all_that_is_fetched_has_a_limit(hub: FakeHub, tmp_path: Path) -> None:
    tokenizers = {f"{n}/{name}": 49_000_000 for n in range(4) for name in ("tokenizer.json",)}
    hub.files |= {f"{n}/{CONFIG}": hub.files[CONFIG] for n in range(4)}
    hub.files |= dict.fromkeys(tokenizers, bytes(49_000_000))
    assert "takes more than 150000000 bytes" in line_of(hub, tmp_path)
    assert hub.n_sent < 220_000_000


# --- Bodies, and the time they take -----------------------------------------------------------------------------------


def endless(handler: Handler) -> None:
    """Chunks until nobody reads them."""
    handler.start(200, {"Transfer-Encoding": "chunked"})
    while not handler.close_connection:
        handler.body(b"2710\r\n" + b" " * 10_000 + b"\r\n")


@pytest.mark.parametrize("part", ["/revision/", "/tree/", f"resolve/{COMMIT}/{CONFIG}"])
def test_an_endless_body(hub: FakeHub, tmp_path: Path, part: str) -> None:
    hub.faults[part] = endless
    assert "which isn't read to its end" in line_of(hub, tmp_path)
    assert hub.n_sent < 30_000_000


@pytest.fixture(scope="module")
def bomb() -> bytes:
    """Less than a million bytes that unpack to 900 million: a block of zeros, again and again."""
    packer = zlib.compressobj(9, wbits=31)
    block = packer.compress(bytes(9_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(9_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block + 99 * again + packer.flush()


@pytest.mark.parametrize("part", ["/tree/", f"resolve/{COMMIT}/{CONFIG}"])
@pytest.mark.parametrize("status", [200, 404])
def test_a_bomb_is_not_unpacked(hub: FakeHub, tmp_path: Path, bomb: bytes, part: str, status: int) -> None:
    assert len(bomb) < 1_000_000
    hub.faults[part] = lambda handler: handler.send(status, bomb, {"Content-Encoding": "gzip"})
    said = {200: ("sends it compressed (gzip)", f"sends {len(bomb)} bytes, wanted"), 404: ("is not there",)}[status]
    line = the_line(check_apart(hub, tmp_path, ADDRESS))
    assert any(words in line for words in said)


def test_what_is_short_enough_is_not_unpacked_either(hub: FakeHub, tmp_path: Path) -> None:
    packed = gzip.compress(Path(str(hub.files[CONFIG])).read_bytes())
    packed += bytes(hub.size(CONFIG) - len(packed))
    hub.faults[f"resolve/{COMMIT}/{CONFIG}"] = lambda handler: handler.send(200, packed, {"Content-Encoding": "gzip"})
    assert "sends it compressed (gzip)" in line_of(hub, tmp_path)


def test_a_refusal_without_end_is_not_read(hub: FakeHub, tmp_path: Path) -> None:
    def answer(handler: Handler) -> None:
        handler.start(404, {"Transfer-Encoding": "chunked"})
        while not handler.close_connection:
            handler.body(b"2710\r\n" + b" " * 10_000 + b"\r\n")

    hub.faults["/revision/"] = answer
    assert "is not there" in line_of(hub, tmp_path)
    assert hub.n_sent < 30_000_000


def silent(handler: Handler) -> None:
    time.sleep(5)
    handler.close_connection = True


def test_a_silent_hub(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults["/tree/"] = silent
    began = time.monotonic()
    assert "sent nothing for 1 s (HF_HUB_DOWNLOAD_TIMEOUT)" in line_of(hub, tmp_path, timeout=1)
    assert time.monotonic() - began < 4


def drop_by_drop(start: bytes) -> Callable[[Handler], None]:
    """An answer that never waits as long as a client does, and never ends."""

    def answer(handler: Handler) -> None:
        handler.body(start)
        while not handler.close_connection:
            time.sleep(0.1)
            handler.body(b"x")

    return answer


@pytest.mark.parametrize("start", [b"HTTP/1.1 200 ", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"])
@pytest.mark.parametrize("part", ["/revision/", "/tree/", f"resolve/{COMMIT}/{CONFIG}"])
def test_drop_by_drop(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, start: bytes) -> None:
    monkeypatch.setattr("converter.hub.client._ANSWER_SECONDS", 0.6)
    monkeypatch.setattr("converter.hub.client._SLOWEST", 1e9)
    hub.faults[part] = drop_by_drop(start)
    began = time.monotonic()
    assert "took longer than 1 s; try again later" in line_of(hub, tmp_path)
    assert time.monotonic() - began < 4


def test_many_slow_answers(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.hub.fetching.HUB_SECONDS", 1)
    hub.files |= {f"{n}/{CONFIG}": hub.files[CONFIG] for n in range(40)}
    del hub.files[CONFIG], hub.files[WEIGHTS]

    def late(handler: Handler) -> None:
        time.sleep(0.4)
        send_file(handler, f"0/{CONFIG}", {})

    hub.faults["/resolve/"] = late
    assert "took longer than 1 s" in line_of(hub, tmp_path)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing(hub: FakeHub, tmp_path: Path, number: signal.Signals, status: int) -> None:
    has_come = threading.Event()

    def wait(handler: Handler) -> None:
        has_come.set()
        silent(handler)

    hub.faults[f"resolve/{COMMIT}/{WEIGHTS}"] = wait
    with started(hub, tmp_path, ADDRESS) as process:
        assert has_come.wait(20)
        assert len([*(tmp_path / "scratch").iterdir()]) == 1
        process.send_signal(number)
        _, stderr = process.communicate(timeout=4)
    assert process.returncode == status
    assert stderr.strip() in ("adapter-check: interrupted", "")


def test_redirects_without_end(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults["/resolve/"] = lambda handler: handler.send(302, b"", {"Location": handler.path})
    assert "redirects more than 5 times" in line_of(hub, tmp_path)


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://x/y", "http://[", "http://127.0.0.1:99999/", "gopher:x"]
)
def test_redirects_to_what_is_no_http(hub: FakeHub, tmp_path: Path, target: str) -> None:
    hub.faults["/resolve/"] = lambda handler: handler.send(302, b"", {"Location": target})
    assert "redirects" in line_of(hub, tmp_path)


def test_a_redirect_on_the_hub_itself_is_followed(hub: FakeHub, specimen: Specimen, tmp_path: Path) -> None:
    """As of a repository that was renamed."""
    hub.faults["old/name"] = lambda handler: handler.send(
        307, b"", {"Location": handler.path.replace("old/name", "org/name")}
    )
    assert check(hub, tmp_path, "hf://old/name", "--base", specimen.base).status == 0
