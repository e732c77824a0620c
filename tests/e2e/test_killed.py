"""Each command that writes, killed (SIGKILL) or out of room at random moments: nothing half is left, and a rerun ends.

A scratch directory beside the output may be left by a kill; the next run has to remove it.

KILLS is the number of moments for each.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fixtures.adapters import tiny_adapter
from fixtures.peft_methods import method_adapter
from fixtures.tiny import TinyModel
from fixtures.trainable import chats, trainable
from tests.e2e.preloaded import Preloaded
from tests.rules.specimens import Specimen, head_lora
from tests.unit.conversion import write_base

pytestmark = [pytest.mark.thorough, pytest.mark.timeout(7200)]
KILLS = int(os.environ.get("KILLS", "10"))
ROOT = Path(__file__).parents[2]
SCRATCH = ".adapter-scratch-"
MODULE = {
    "adapter-check": "converter.cli.check",
    "adapter-to-gguf": "converter.cli.to_gguf",
    "adapter-train": "converter.cli.train",
    "adapter-verify": "converter.cli.verify",
}


class Fresh:
    """Runs of a command, each in a process of its own."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self._name, self._environment = name, environment

    def start(self, arguments: list[str], before: str = "") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"{before}\n{code(self._name)}", *arguments],
            env=self._environment, cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> tuple[int, str]:
        _, said = self._process.communicate()
        return self._process.returncode, said


@dataclass(frozen=True, slots=True)
class Work:
    """A command and its arguments, what it writes to, and the system's temporary directory while it runs."""

    runs: Fresh | Preloaded
    arguments: list[str]
    place: Path
    temporary: Path

    def finish(self) -> float:
        """Run it to its end, which has to be a good one. Returns how long that took in seconds."""
        begin = time.monotonic()
        self.runs.start(self.arguments)
        status, said = self.runs.end()
        assert status == 0, said
        assert list(self.temporary.iterdir()) == []
        return time.monotonic() - begin

    def kill(self, seconds: float) -> bool:
        """Run it, and kill it after ``seconds``. Whether that came before its end."""
        self.runs.start(self.arguments)
        time.sleep(seconds)
        self.runs.kill()
        return self.runs.end()[0] == -signal.SIGKILL

    def written(self) -> dict[str, bytes]:
        """What lies in the directory of outputs."""
        return {
            str(path.relative_to(self.place)): path.read_bytes() for path in self.place.rglob("*") if path.is_file()
        }

    def clear(self) -> None:
        for path in sorted(self.place.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def command(name: str, tmp_path: Path, place: Path) -> list[str]:
    """The command of a case, whose outputs lie in ``place``."""
    if name in ("model through PEFT", "train", "verify"):
        return _with_torch(name, tmp_path, place)
    base = write_base(tmp_path / "base.gguf")
    specimen = Specimen(tmp_path / "adapter", base)
    if name.startswith("untied"):
        specimen.tensors |= head_lora()
    specimen.write()
    given = [str(specimen.directory), "--base", str(base)]
    return {
        "report": ["adapter-check", *given, *(f"--format={f}={place}/report.{f}" for f in ("json", "html", "sarif"))],
        "attestation": ["adapter-check", *given, "--attest", f"{place}/attestation.json"],
        "lora": ["adapter-to-gguf", *given, "-o", f"{place}/lora.gguf"],
        "model": ["adapter-to-gguf", *given, "--to", "model", "-o", f"{place}/model.gguf"],
        "untied model": ["adapter-to-gguf", *given, "--untie", "-o", f"{place}/model.gguf"],
        "untied lora": ["adapter-to-gguf", *given, "--untie", "--to", "lora", "-o", f"{place}/both"],
    }[name]


def _with_torch(name: str, tmp_path: Path, place: Path) -> list[str]:
    model = TinyModel("llama", tied=False)
    if name == "train":
        data = tmp_path / "data.jsonl"
        data.write_text(chats(), encoding="utf-8")
        given = ["--base", str(trainable(model)), "--data", str(data), "--max-steps", "2"]
        return ["adapter-train", *given, "--output", f"{place}/new"]
    if name == "verify":
        adapter, lora = tiny_adapter("plain", model), tmp_path / "lora.gguf"
        made = ["adapter-to-gguf", str(adapter), "--base", str(model.gguf), "-o", str(lora)]
        subprocess.run([sys.executable, "-c", code(made[0]), *made[1:]], check=True, cwd=ROOT, capture_output=True)
        return ["adapter-verify", str(adapter), "--base", str(model.gguf), "--lora", str(lora)]
    adapter = method_adapter("loha", model)
    return ["adapter-to-gguf", str(adapter), "--base", str(model.gguf), "--to", "model", "-o", f"{place}/model.gguf"]


def code(name: str) -> str:
    return f"from {MODULE[name]} import main; main(prog_name={name!r})"


LIGHT = ["report", "attestation", "lora", "model", "untied model", "untied lora"]
# What each imports before it begins.
HEAVY = {
    "model through PEFT": ["peft"],
    "verify": ["peft", "transformers"],
    "train": ["accelerate", "datasets", "peft", "transformers", "trl"],
}


@pytest.fixture
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Work]:
    place, temporary = tmp_path / "place", tmp_path / "temporary"
    place.mkdir()
    temporary.mkdir()
    name, *given = command(request.param, tmp_path, place)
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    if libraries := HEAVY.get(request.param):
        with Preloaded(MODULE[name], libraries, tmp_path / "messages", environment) as runs:
            yield Work(runs, given, place, temporary)
    else:
        yield Work(Fresh(name, environment), given, place, temporary)


@pytest.mark.parametrize("work", [*LIGHT, "model through PEFT", "verify"], indirect=True)
def test_killed_at_random_moments(work: Work) -> None:
    seconds = work.finish()
    whole = work.written()
    moments = np.random.default_rng(0)
    n_killed = 0
    for _ in range(KILLS):
        work.clear()
        n_killed += work.kill(moments.uniform(0, seconds * 1.1))
        left = {name: found for name, found in work.written().items() if not name.startswith(SCRATCH)}
        assert not {name: found for name, found in left.items() if found != whole.get(name)}
        work.finish()
        assert work.written() == whole
    assert n_killed


@pytest.mark.parametrize("work", LIGHT, indirect=True)
def test_out_of_room_at_random_sizes(work: Work) -> None:
    work.finish()
    whole = work.written()
    largest = max(map(len, whole.values()))
    sizes = np.random.default_rng(0)
    for _ in range(KILLS):
        work.clear()
        size = sizes.integers(largest)
        assert isinstance(work.runs, Fresh)
        work.runs.start(work.arguments, f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))")
        status, said = work.runs.end()
        assert status == 2
        assert len(said.splitlines()) == 1
        assert said.endswith("File too large; nothing was left behind\n")
        assert not {name: found for name, found in work.written().items() if found != whole.get(name)}
        work.finish()
        assert work.written() == whole


@pytest.mark.parametrize("work", ["train"], indirect=True)
def test_training_killed_at_random_moments(work: Work) -> None:
    """What is left is nothing, all of it, or a directory of work that the next run takes for its own."""
    seconds = work.finish()
    whole = work.written()
    moments = np.random.default_rng(0)
    n_killed = 0
    for _ in range(KILLS):
        work.clear()
        n_killed += work.kill(moments.uniform(0, seconds * 1.1))
        adapter = {name: found for name, found in work.written().items() if name.startswith("new/")}
        assert not adapter or adapter.keys() == whole.keys()
        if not adapter:
            work.finish()
        assert work.written().keys() == whole.keys()
        assert work.written()["new/adapter_model.safetensors"] == whole["new/adapter_model.safetensors"]
    assert n_killed
