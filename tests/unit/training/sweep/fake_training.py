"""A training that takes no time: it writes what a run leaves behind, with losses that follow from its settings."""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import ConverterError
from converter.training.settings import TrainingSettings, settings_data
from converter.training.watch import Stopped, Watch

N_STEPS = 6
LORA_NBYTES = 1_200_000


def settings(directory: Path, **changes: Any) -> TrainingSettings:
    """What all trials of a test's sweep share."""
    data = directory / "data.jsonl"
    if not data.exists():
        data.write_text('{"text": "one"}\n')
    return TrainingSettings(base=Path("base"), data=str(data), output=directory / "unused", **changes)


def loss_of(run: TrainingSettings) -> float:
    """Better with rank and with a head of its own; a little better or worse with each seed."""
    gain = 0.03 * math.log2(run.r / 8) + {"none": 0.0, "lora": 0.01}.get(run.head, 0.0)
    astray = 0.2 * abs(math.log(run.learning_rate / 2e-4)) + abs(run.lora_dropout - 0.05)
    return 1.3 - gain + astray + 0.006 * math.sin(7 * run.seed + run.r)


@dataclass(frozen=True)
class FakeTraining:
    """``fails`` is the rank whose runs fail, 0 none; ``seconds`` what a step takes."""

    seconds: float = 0.0
    fails: int = 0
    refused: tuple[str, ...] = ()

    def __call__(self, run: TrainingSettings, watch: Watch) -> None:
        work = run.output.with_name(f"{run.output.name}.training")
        work.mkdir(parents=True)
        watch.begins(N_STEPS)
        if run.r == self.fails:
            raise ConverterError(f"out of memory at r {run.r}")
        started = time.monotonic()
        for step in range(1, N_STEPS + 1):
            time.sleep(self.seconds)
            self._step(run, watch, work, step)
        (work / "training_report.json").write_text(json.dumps(self._report(run, time.monotonic() - started)))
        (work / "adapter_model.safetensors").write_bytes(b"adapter")
        work.rename(run.output)

    def _step(self, run: TrainingSettings, watch: Watch, work: Path, step: int) -> None:
        train = {"loss": loss_of(run) + 2 / step, "learning_rate": run.learning_rate}
        _log(work, {"step": step, **train})
        watch.logged(step, train)
        if step % 2 == 0:
            loss = loss_of(run) + (1 / step - 1 / N_STEPS)
            _log(work, {"step": step, "eval_loss": loss})
            if watch.stops(step, loss):
                raise Stopped(step, loss)

    def _report(self, run: TrainingSettings, seconds: float) -> dict[str, Any]:
        untied = run.head in ("lora", "full")
        nbytes = LORA_NBYTES * run.r + (8_000_000 if untied else 0)
        lora = list(self.refused) or (["HD001"] if untied else ["GG004"] if run.lora_bias else [])
        model = list(self.refused) or (["HD001"] if untied else [])
        return {
            "version": "1",
            "settings": settings_data(run),
            "libraries": {"torch": "2.13.0", "peft": "0.21.2"},
            "base": {
                "path": "base",
                "architecture": "llama",
                "fingerprint": "norms-sha256:12",
                "tie_word_embeddings": True,
                "n_parameters": 134_515_008,
            },
            "head": {"choice": run.head, "untied": untied},
            "data": {"n_train": 180, "n_eval": 20, "n_dropped": 0, "n_truncated": 0, "longest": 61},
            "n_trainable": 300_000 * run.r,
            "adapter_nbytes": nbytes,
            "steps": N_STEPS,
            "train_loss": loss_of(run) + 0.33,
            "eval_loss": loss_of(run),
            "eval_loss_of_base": 3.2,
            "perplexity": {"base": 14.1, "adapter": 14.1 * (1.02 + run.r / 2000 + 0.05 * untied), "n_tokens": 2048},
            "deployments": {
                "lora": {"refused_by": lora, "nbytes": None if lora else nbytes},
                "model": {"refused_by": model, "nbytes": None if model else 271_000_000},
                "untie-lora": {"refused_by": list(self.refused), "nbytes": nbytes + 327_000_000},
                "untie-model": {"refused_by": list(self.refused), "nbytes": 327_000_000},
            },
            "seconds": seconds,
        }


def _log(work: Path, line: dict[str, float]) -> None:
    with (work / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
