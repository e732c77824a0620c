"""adapter-train on real models, as its users run it, up to real llama.cpp."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fixtures.real import SMOLLM2

pytestmark = [pytest.mark.model, pytest.mark.timeout(1800)]
DATA = Path(__file__).parents[2] / "examples" / "data" / "keeper.jsonl"
SHORT = (
    "--max-steps",
    "4",
    "--eval-steps",
    "2",
    "--lora-dropout",
    "0",
    "--learning-rate",
    "1e-3",
    "--warmup-ratio",
    "0",
)


def command(*arguments: str | Path, launcher: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a module of ours in a process of its own, or in several through a launcher."""
    started = [sys.executable, *(launcher or ("-m",)), *map(str, arguments)]
    # Each of two processes has one of two cores; one alone computes with one as well, to compare like with like.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(started, capture_output=True, text=True, check=False, env=environment)


def trained(output: Path, *options: str | Path, launcher: Sequence[str] = ()) -> dict[str, Any]:
    base = ("--base", SMOLLM2.hf, "--data", DATA, "--output", output)
    done = command("converter.train", *base, *SHORT, *options, launcher=launcher)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads((output / "training_report.json").read_text(encoding="utf-8"))
    return report


def deltas(adapter: Path) -> dict[str, torch.Tensor]:
    factors = load_file(adapter / "adapter_model.safetensors")
    return {
        key.removesuffix(".lora_A.weight"): factors[key.replace("lora_A", "lora_B")] @ factors[key]
        for key in factors
        if ".lora_A." in key
    }


def distance(ours: Path, theirs: Path) -> float:
    """The distance of two adapters' deltas, as a share of the second's size."""
    a, b = deltas(ours), deltas(theirs)
    assert a.keys() == b.keys()
    apart = sum(float((a[key] - b[key]).square().sum()) for key in a)
    return float((apart / sum(float(delta.square().sum()) for delta in b.values())) ** 0.5)


@pytest.mark.parametrize("head", ["none", "lora"])
def test_two_processes_train_as_one_does(tmp_path: Path, head: str) -> None:
    options = ("--head", head, "--batch-size", "8", "--per-device-train-batch-size", "4")
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
                "--mixed_precision", "no", "--dynamo_backend", "no", "-m")  # fmt: skip
    one = trained(tmp_path / "one", *options)
    two = trained(tmp_path / "two", *options, launcher=launcher)
    assert two["steps"] == one["steps"]
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
    assert two["eval_loss"] == pytest.approx(one["eval_loss"], rel=2e-2)  # a mean over other batches
    assert distance(tmp_path / "two", tmp_path / "one") < 0.02
    other = trained(tmp_path / "other", *options, "--seed", "1")
    assert other["steps"] == one["steps"]
    assert distance(tmp_path / "other", tmp_path / "one") > 0.2  # the control: another order of the samples
