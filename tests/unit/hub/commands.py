"""adapter-check before a hub on this machine: in this process, or in one of its own, as a pipeline runs it."""

import gc
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner
from huggingface_hub import constants

from converter.cli.check import main
from fixtures.hub import COMMIT, FakeHub

ADDRESS = "hf://org/name"
AT_COMMIT = f"{ADDRESS}@{COMMIT}"
_NBYTES = 800_000_000  # of address space: a good run takes 350 MB of it


class Ran(NamedTuple):
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stderr.splitlines()


def invoked(command: click.Command, hub: FakeHub, tmp_path: Path, *arguments: object, token: str | None = None) -> Ran:
    """Run a command here, with a hub and a cache of its own: ``tmp_path / "cache"``; nothing is left but that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        patch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
        patch.setattr(tempfile, "tempdir", str(_made(tmp_path / "scratch")))
        patch.setattr(time, "sleep", lambda _: None)  # between tries
        patch.delenv("HF_TOKEN", raising=False)
        if token:
            patch.setenv("HF_TOKEN", token)
        patch.chdir(tmp_path)
        result = CliRunner().invoke(command, [*map(str, arguments)])
        ran = Ran(result.exit_code, result.stdout, result.stderr)
        del result  # its traceback holds the base, and that its private directory
        gc.collect()
    assert [*(tmp_path / "scratch").iterdir()] == [], "left behind"
    return ran


def check(hub: FakeHub, tmp_path: Path, *arguments: object, token: str | None = None, timeout: float = 10) -> Ran:
    """Run adapter-check here; what huggingface_hub took from the environment at its import is set to what it would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", timeout)
        patch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home" / "token"))
        patch.setattr(tempfile, "tempdir", str(_made(tmp_path / "scratch")))
        patch.delenv("HF_TOKEN", raising=False)
        if token:
            patch.setenv("HF_TOKEN", token)
        patch.chdir(tmp_path)
        result = CliRunner().invoke(main, [*map(str, arguments)])
    assert [*(tmp_path / "scratch").iterdir()] == [], "left behind"
    return Ran(result.exit_code, result.stdout, result.stderr)


def check_apart(hub: FakeHub, tmp_path: Path, *arguments: object, **variables: str | None) -> Ran:
    """Run it in a process with a home and an environment of its own; a variable that is None is not set."""
    with started(hub, tmp_path, *arguments, **variables) as process:
        stdout, stderr = process.communicate(timeout=60)
    return Ran(process.returncode, stdout, stderr)


@contextmanager
def started(
    hub: FakeHub, tmp_path: Path, *arguments: object, **variables: str | None
) -> Iterator["subprocess.Popen[str]"]:
    """The same, while it runs; that nothing is left is looked at in the end."""
    home, scratch = _made(tmp_path / "home"), _made(tmp_path / "scratch")
    wanted = {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": None,
        "HF_TOKEN": None,
        "TMPDIR": str(scratch),
        "PYTHONPATH": str(Path(__file__).parents[3]),
        **variables,
    }
    kept = {name: value for name, value in os.environ.items() if name not in wanted}
    process = subprocess.Popen(
        [sys.executable, "-m", "converter", "check", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=kept | {name: value for name, value in wanted.items() if value is not None},
        preexec_fn=_bound_memory,  # noqa: PLW1509  one call, without a lock
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
    assert [*scratch.iterdir()] == [], "left behind"
    assert [*home.iterdir()] == [], "in the hub's cache"


def _bound_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_NBYTES, _NBYTES))


def _made(directory: Path) -> Path:
    directory.mkdir(exist_ok=True)
    return directory
