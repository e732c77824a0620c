"""A sweep on real SmolLM2-135M in minutes (`make sweep-demo`): killed half-way, gone on with, and its report."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from examples.shown import run, say
from fixtures.real import SMOLLM2

DATA = Path(__file__).with_name("data") / "keeper.jsonl"
SWEEP = Path(__file__).with_name("sweep.toml")
OUTPUT = Path("demo-output")
BASE, DIRECTORY = OUTPUT / "SmolLM2-135M-Instruct", OUTPUT / "sweep"
ARGUMENTS = (
    *("--sweep", SWEEP, "--base", BASE, "--data", DATA, "--output", DIRECTORY),
    *("--max-steps", "20", "--eval-steps", "10", "--batch-size", "2"),
)
N_BEFORE_THE_KILL = 2


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    shutil.copytree(SMOLLM2.hf, BASE, dirs_exist_ok=True)
    kill_after_some_trials()
    run("adapter-train", *ARGUMENTS)
    n_checked = check_report()
    say(f"The report's eval losses are those of the metrics files, in {n_checked} trials")
    say(f"Open {DIRECTORY / 'report.html'}")


def kill_after_some_trials() -> None:
    say(f"A first run of the sweep, killed (kill -9) in its trial {N_BEFORE_THE_KILL + 1}")
    arguments = [sys.executable, "-m", "converter.training", *map(str, ARGUMENTS)]
    running = subprocess.Popen(arguments)
    while running.poll() is None and not is_in_the_midst():
        time.sleep(0.5)
    running.send_signal(signal.SIGKILL)
    running.wait()


def is_in_the_midst() -> bool:
    """Whether the trial after the last to be spared has taken a step."""
    metrics = DIRECTORY / "trials" / f"{N_BEFORE_THE_KILL:04}.training" / "metrics.jsonl"
    return metrics.exists() and '"loss"' in metrics.read_text(encoding="utf-8")


def check_report() -> int:
    """Compare what the report says of each whole trial with what the trial itself logged last."""
    page = (DIRECTORY / "report.html").read_text(encoding="utf-8")
    with (DIRECTORY / "trials.csv").open(encoding="utf-8", newline="") as file:
        whole = [row for row in csv.DictReader(file) if row["state"] == "completed"]
    for row in whole:
        lines = (DIRECTORY / "trials" / f"{int(row['trial']):04}" / "metrics.jsonl").read_text(encoding="utf-8")
        last = [logged["eval_loss"] for logged in map(json.loads, lines.splitlines()) if "eval_loss" in logged][-1]
        if float(row["eval_loss"]) != last or f"{last:.4f}" not in page:
            sys.exit(f"trial {row['trial']}: the report says {row['eval_loss']}, its metrics {last}")
    return len(whole)


if __name__ == "__main__":
    main()
