"""Files and directories that belong to someone else: they are named, with status 2, and nothing else suffers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from converter.errors import COULD_NOT, FINE, NOTHING_LOOKED_AT
from tests.rules.specimens import Specimen, write_gguf, write_huggingface

DENIED = "can't be read: Permission denied"
# root may read everything, but for these two powers, which the command is started without.
BOUND = () if os.getuid() else ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def run(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    call = f"from converter.cli.{module} import main; main()"
    command = [*BOUND, sys.executable, "-c", call, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def adapter(directory: Path, **config: object) -> Path:
    it = Specimen(directory, base=None)
    it.config |= config
    it.write()
    return directory


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A directory with an adapter in it, beside another adapter; its mode is the test's to set."""
    adapter(tmp_path / "all" / "open")
    adapter(tmp_path / "all" / "closed" / "a")
    return tmp_path / "all" / "closed"


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o100])
def test_a_directory_that_may_not_be_looked_into_is_told(mode: int, closed: Path) -> None:
    closed.chmod(mode)
    try:
        among, alone = run("check", closed.parent), run("check", closed)
        converted = [run("to_gguf", path, "-o", closed.parent / "x.gguf") for path in (closed, closed.parent)]
    finally:
        closed.chmod(0o700)
    assert among.returncode == COULD_NOT
    assert among.stdout.startswith(f"{closed.parent / 'open'}: fine for --to lora")
    assert among.stderr == f"adapter-check: {closed}: {DENIED}\n"
    assert (alone.returncode, alone.stderr) == (COULD_NOT, among.stderr)
    for ran in converted:
        assert (ran.returncode, ran.stderr) == (COULD_NOT, f"adapter-to-gguf: {closed}: {DENIED}\n")


def test_what_lies_in_it_is_not_said_to_be_missing(closed: Path) -> None:
    closed.chmod(0)
    try:
        judged, converted = run("check", closed / "a"), run("to_gguf", closed / "a", "-o", closed.parent / "x.gguf")
        initial = run("check", closed.parent / "open", "--initial-adapter", closed / "a")
    finally:
        closed.chmod(0o700)
    for ran in (judged, converted, initial):
        assert ran.returncode == COULD_NOT
        assert DENIED in ran.stderr
        assert ran.stderr.count("\n") == 1
    assert run("check", closed / "b").returncode == NOTHING_LOOKED_AT


FILES = ("adapter_config.json", "adapter_model.safetensors", "tokenizer_config.json", "base_fingerprint.json")


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_an_adapter_that_may_not_be_read_is_told(name: str, closed: Path) -> None:
    (closed / "a" / name).touch()
    (closed / "a" / name).chmod(0)
    ran = run("check", closed.parent, "--base", write_gguf(closed / "base.gguf"))
    assert ran.returncode == COULD_NOT
    assert f"{closed.parent / 'open'}: fine for --to lora" in ran.stdout
    assert ran.stderr == f"adapter-check: {closed / 'a'}: {closed / 'a' / name}: {DENIED}\n"


def test_a_base_in_anothers_home_is_a_base_that_is_not_there(tmp_path: Path) -> None:
    """Adapters are trained under another user's home, or /root: what they name there can't be looked for."""
    home = tmp_path / "home"
    for path in (write_huggingface(home / "base"), write_gguf(home / "base.gguf")):
        it = adapter(tmp_path / "adapter", base_model_name_or_path=str(path))
        home.chmod(0)
        try:
            judged, converted = run("check", it), run("to_gguf", it, "-o", tmp_path / "x.gguf")
        finally:
            home.chmod(0o700)
        assert (judged.returncode, judged.stderr) == (FINE, "")
        assert converted.returncode == COULD_NOT
        assert f"its base {str(path)!r} is not on this machine; give it with --base" in converted.stderr


def test_a_base_that_is_given_and_may_not_be_read_is_told(closed: Path) -> None:
    base = write_gguf(closed / "base.gguf")
    for path, mode in ((base, 0), (closed, 0)):
        path.chmod(mode)
        try:
            ran = run("check", closed.parent / "open", "--base", base, "--format", "json")
        finally:
            path.chmod(0o700)
        assert ran.returncode == COULD_NOT
        (unread,) = json.loads(ran.stdout)["unread"]
        assert unread["message"].endswith(DENIED)
