"""adapter-train on real models, as its users run it, up to real llama.cpp."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fixtures.real import SMOLLM2
from fixtures.tiny import TinyModel
from fixtures.trainable import trainable

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


def command(
    *arguments: str | Path, launcher: Sequence[str] = (), limit: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a module of ours in a process of its own, or in several through a launcher."""
    started = [sys.executable, *(launcher or ("-m",)), *map(str, arguments)]
    # Each of two processes has one of two cores; one alone computes with one as well, to compare like with like.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(started, capture_output=True, text=True, check=False, env=environment, preexec_fn=limit)


@pytest.fixture
def little(tmp_path: Path) -> Path:
    """Little general text: what forgetting is has tests of its own, and takes longer than four steps."""
    path = tmp_path / "general.txt"
    path.write_text("The river rises in the hills and flows south to the sea.", encoding="utf-8")
    return path


def trained(
    output: Path, *options: str | Path, launcher: Sequence[str] = (), base: Path | None = None
) -> dict[str, Any]:
    paths = ("--base", base or SMOLLM2.hf, "--data", DATA, "--output", output)
    done = command("converter.training", *paths, *SHORT, *options, launcher=launcher)
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


@pytest.mark.parametrize("head", [pytest.param("none", marks=pytest.mark.thorough), "lora"])
@pytest.mark.parametrize("model", ["tiny", pytest.param("smollm2", marks=pytest.mark.thorough)])
def test_two_processes_train_as_one_does(tmp_path: Path, little: Path, model: str, head: str) -> None:
    """Within an epoch: its last step may be too short for all processes, and accelerate fills it up."""
    base = trainable(TinyModel("llama")) if model == "tiny" else SMOLLM2.hf
    options = ("--head", head, "--batch-size", "4", "--per-device-train-batch-size", "2", "--general-text", little)
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
                "--mixed_precision", "no", "--dynamo_backend", "no", "-m")  # fmt: skip
    one = trained(tmp_path / "one", *options, base=base)
    two = trained(tmp_path / "two", *options, launcher=launcher, base=base)
    assert two["steps"] == one["steps"]
    assert one["data"]["n_train"] >= 4 * 4
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
    assert two["eval_loss"] == pytest.approx(one["eval_loss"], rel=2e-2)  # a mean over other batches
    assert distance(tmp_path / "two", tmp_path / "one") < 0.02
    if head == "none":
        return
    half = trained(tmp_path / "half", *options, "--batch-size", "2", base=base)
    assert half["steps"] == one["steps"]
    assert distance(tmp_path / "half", tmp_path / "one") > 0.2  # the control: steps of one process's samples alone


def test_a_gguf_is_a_base_too(tmp_path: Path, little: Path) -> None:
    """The same values in another order of rows: the same losses, the same adapter; and it names its file."""
    options = ("--max-steps", "1", "--batch-size", "2", "--general-text", little)
    ours = trained(tmp_path / "gguf", *options, base=SMOLLM2.bf16_gguf)
    theirs = trained(tmp_path / "hf", *options)
    assert ours["eval_loss_of_base"] == pytest.approx(theirs["eval_loss_of_base"], rel=1e-5)
    assert ours["base"]["fingerprint"] == theirs["base"]["fingerprint"]
    assert distance(tmp_path / "gguf", tmp_path / "hf") < 1e-3
    config = json.loads((tmp_path / "gguf" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(SMOLLM2.bf16_gguf)


def test_out_of_memory_is_one_clear_line(tmp_path: Path, little: Path) -> None:
    """Logits of 12 GB, where 6 GB are allowed."""
    data = tmp_path / "data.jsonl"
    data.write_text((json.dumps({"text": "the sea and the lamp " * 200}) + "\n") * 70, encoding="utf-8")
    done = command(
        *("converter.training", "--base", SMOLLM2.hf, "--data", data, "--output", tmp_path / "out", "--head", "lora"),
        *("--batch-size", "64", "--per-device-train-batch-size", "64", "--general-text", little, "--eval-split", "0"),
        limit=lambda: resource.setrlimit(resource.RLIMIT_DATA, (6 * 10**9, 6 * 10**9)),
    )
    assert done.returncode == 2
    assert done.stderr.startswith("adapter-train: out of memory: wanted ")
    assert "a smaller --per-device-train-batch-size (now 64)" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("out*"))
