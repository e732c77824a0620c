from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from converter.training.settings import TrainingSettings
from fixtures.tiny import TinyModel
from fixtures.trainable import chats, trainable

BASE = TinyModel("llama")


@dataclass
class Watched:
    """A watch that keeps what it is told, and stops when it is asked after the step in `until`."""

    until: int | None = None
    lines: list[str] = field(default_factory=list)
    rows: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)
    n_steps: int = 0

    def begins(self, n_steps: int) -> None:
        self.n_steps = n_steps

    def logged(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append((step, values))

    def says(self, line: str) -> None:
        self.lines.append(line)

    def stops(self, step: int, eval_loss: float) -> bool:
        del eval_loss
        return self.until is not None and step >= self.until


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "chats.jsonl"
    path.write_text(chats(), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def general(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("general") / "general.txt"
    path.write_text("The river rises in the hills.\n\nBread is made from flour and water.\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def settings(data: Path, general: Path) -> Callable[..., TrainingSettings]:
    """Settings of a run of seconds whose adapter has a real effect."""
    default = TrainingSettings(
        base=trainable(BASE),
        data=str(data),
        output=Path("unset"),
        r=4,
        lora_alpha=8.0,
        lora_dropout=0.0,
        max_steps=6,
        batch_size=4,
        learning_rate=2e-2,
        eval_steps=3,
        max_length=128,
        warmup_ratio=0.0,
        general_text=general,
    )
    return lambda **changes: replace(default, **changes)
