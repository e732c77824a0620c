"""A fleet of small adapters, and workers that need no Ray: what they count is what was done."""

import json
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from huggingface_hub import constants

from converter.fleet import hub_push
from converter.fleet.hub_push import with_pushes
from converter.fleet.manifest import Defaults, read_manifest
from converter.fleet.rows import Steps
from converter.fleet.run import Result, check_rows, run
from converter.fleet.table import opened
from converter.fleet.task import Ended, Event, Outcome, Reading, State, Task
from converter.fleet.work import done, read_base
from fixtures.writable_hub import WritableHub, taking
from tests.rules.specimens import Specimen, head_lora, tensor
from tests.unit.conversion import write_base


def write_adapter(directory: Path, seed: int = 0, *, with_head: bool = False) -> Path:
    """An adapter with numbers of its own; one with a head is refused for a LoRA on a tied base (HD001)."""
    it = Specimen(directory, None)
    it.tensors = {key: tensor(*shape, seed=seed) for key, (_, shape, _) in it.tensors.items()}
    it.tensors |= head_lora() if with_head else {}
    it.write()
    return directory


def write_fleet(top: Path, n_adapters: int = 4, n_bases: int = 2, **columns: str) -> Path:
    """Adapters a0, a1, ... over bases in turn, and the manifest of them."""
    top.mkdir(parents=True, exist_ok=True)
    for number in range(n_bases):
        write_base(top / f"base{number}.gguf")
    rows: list[dict[str, object]] = []
    for number in range(n_adapters):
        write_adapter(top / f"a{number}", number)
        row = {"adapter": f"a{number}", "base": f"base{number % n_bases}.gguf", "output": f"out/a{number}.gguf"}
        rows.append({**row, **columns})
    return write_manifest(top / "fleet.jsonl", rows)


def write_manifest(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@dataclass
class Serial:
    """Workers in this process. ``before`` and ``after`` are called around each adapter, and may end the run."""

    before: Callable[[Task], None] = lambda _: None
    after: Callable[[Task], None] = lambda _: None
    did: list[str] = field(default_factory=list)
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def __call__(self, tasks: Iterator[Task]) -> Generator[Event]:
        readings: dict[Path, Reading] = {}
        for task in tasks:
            if task.base not in readings:
                readings[task.base] = read_base(task.base)
                yield readings[task.base]
            self.before(task)
            outcome = done(task, readings[task.base])
            self.did.append(task.row.adapter.name)
            self.outcomes[task.row.adapter.name] = outcome
            self.after(task)
            yield Ended(task, outcome)


class Unwatched:
    def finished(self, state: State) -> None:
        """Nobody looks on."""

    def ended(self, outcome: Outcome, state: State) -> None:
        """Nobody looks on."""

    def waits(self, what: str = "") -> None:
        """Nobody looks on."""


def run_fleet(manifest: Path, workers: Serial, **defaults: object) -> Result:
    """What adapter-fleet does, with these workers."""
    steps = Steps(outputs=manifest.parent.absolute())
    rows = list(read_manifest(manifest, Defaults()._replace(**defaults)))  # type: ignore[arg-type]
    check_rows(rows, steps)
    with opened(manifest.with_suffix(".sqlite")) as table:
        return run(rows, steps, table, with_pushes(workers, rows), Unwatched())


def adapter_fleet(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "converter", "fleet", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def rows_of(table: Path, columns: str = "state") -> list[tuple[object, ...]]:
    with sqlite3.connect(table) as connection:
        found = connection.execute(f"SELECT {columns} FROM adapters ORDER BY output").fetchall()  # noqa: S608  our own
    connection.close()
    return found


def n_readings(table: Path) -> Counter[tuple[str, str]]:
    """How often each base was read on each node."""
    with sqlite3.connect(table) as connection:
        found = connection.execute("SELECT base, node FROM bases").fetchall()
    connection.close()
    return Counter((Path(base).name, node) for base, node in found)


@contextmanager
def hub_of_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[WritableHub]:
    """A hub that takes commits, and that huggingface_hub asks in this process."""
    with taking(WritableHub()) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its storage speaks a protocol of its own
        monkeypatch.setenv("HF_TOKEN", str(hub.token))
        monkeypatch.setattr(hub_push, "_POLL_SECONDS", 0.02)
        yield hub
