"""A data set's name is looked up on the hub: here one of a few files, on this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HERE = Path(__file__).parents[3] / "examples" / "data" / "keeper.jsonl"  # on this machine, and not of the data set
README = f"""---
configs:
- {{config_name: texts, data_files: [{{split: train, path: a.jsonl}}, {{split: test, path: b.jsonl}}]}}
- {{config_name: chats, data_files: chats.jsonl}}
- {{config_name: here, data_files: {HERE}}}
---
"""
CHAT = {"messages": [{"role": "user", "content": "Hm?"}, {"role": "assistant", "content": "Aye."}]}
FILES = {
    "README.md": README.encode(),
    "a.jsonl": b'{"text": "learn"}\n',
    "b.jsonl": b'{"text": "examine"}\n',
    "chats.jsonl": json.dumps(CHAT).encode(),
}


class Hub(BaseHTTPRequestHandler):
    """The part of https://huggingface.co/docs/hub/api that datasets asks for."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/datasets/org/name/tree/"):
            listed = [{"type": "file", "oid": digest(c), "size": len(c), "path": name} for name, c in FILES.items()]
            self.answer(200, json.dumps(listed).encode())
        elif path.startswith("/api/datasets/org/name"):
            files = [{"rfilename": name} for name in FILES]
            self.answer(200, json.dumps({"_id": "1", "id": "org/name", "sha": COMMIT, "siblings": files}).encode())
        elif path.startswith("/datasets/org/name/resolve/"):
            self.answer_file(path.rpartition("/")[2])
        else:
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815  the name that http.server looks for

    def answer_file(self, name: str) -> None:
        if name in FILES:
            self.answer(200, FILES[name], {"X-Repo-Commit": COMMIT, "ETag": f'"{digest(FILES[name])}"'})
        else:
            self.answer(404, b"", {"X-Repo-Commit": COMMIT, "X-Error-Code": "EntryNotFound"})

    def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: what a test prints is about what it tests."""


def digest(content: bytes) -> str:
    return sha1(content, usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


PROGRAM = """
import sys
from converter.errors import ConverterError
from converter.training.data import read_data
try:
    read = read_data(*sys.argv[1:])
    print(*read.learned, *read.evaluated or ())
except ConverterError as error:
    print(error)
"""


# In a process of its own: the hub's address and its switch are read once, on import.
def read(endpoint: str, home: Path, *arguments: str) -> str:
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environment = {**os.environ, **settings, "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    ran = subprocess.run(command, env=environment, capture_output=True, check=True, text=True, timeout=120)
    return ran.stdout.strip()


LEARN = "Text(where='org/name:texts, split train, sample 1', text='learn')"
EXAMINE = "Text(where='org/name:texts, split test, sample 1', text='examine')"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["org/name:texts"], f"{LEARN} {EXAMINE}"),
        (["org/name:texts", "org/name:texts"], f"{LEARN} {EXAMINE}"),
        (["org/name:here"], "org/name:here: can't be read: Data files don't belong to org/name."),
        (
            ["org/name"],
            "org/name: can't be read: Config name is missing. Please pick one among the available configs: ",
        ),
        (["org/name:verses"], "org/name:verses: can't be read: BuilderConfig 'verses' not found."),
        (["org/other"], "org/other: can't be read: Dataset 'org/other' doesn't exist on the Hub or cannot be accessed"),
    ],
)
def test_a_name_is_read_from_the_hub(endpoint: str, tmp_path: Path, arguments: list[str], expected: str) -> None:
    assert read(endpoint, tmp_path, *arguments).startswith(expected)


def test_a_data_set_of_the_hub_is_kept_in_its_cache(endpoint: str, tmp_path: Path) -> None:
    first = read(endpoint, tmp_path, "org/name:chats")
    assert first.startswith("Chat(where='org/name:chats, sample 1'")
    assert any((tmp_path / "hub").rglob("chats.jsonl"))
