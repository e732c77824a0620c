"""Time and memory of the commands as whole processes, beside ``cp`` of the same bytes (`make bench`).

CPU is user + system time of the process and its children, memory the largest resident size, as the kernel accounts
for a finished process. Absolute times differ between machines: read them as ratios to the cp of the same run.
A first run is not counted: it compiles the modules, as installing does.
This process stays small, preparing is left to a child: Linux counts a parent's memory at the fork as the child's.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

BIN = Path(sys.executable).parent
N_RUNS = 3


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of a command cost: CPU seconds, peak memory in MB."""

    cpu: float
    memory: float


@dataclass(frozen=True, slots=True)
class Case:
    """A command, the status it must end with, what it writes, and the most it may cost."""

    name: str
    command: Sequence[Path | str]
    status: int
    output: Path | None
    limit: Cost


def main() -> int:
    with TemporaryDirectory(prefix="bench-", dir=".") as scratch:
        rows = [_measured(case) for case in _cases(Path(scratch))]
    print(f"median of {N_RUNS} runs; CPU seconds and MB, each with its limit")
    for name, cost, limit, copy in rows:
        beside = f"cp {copy.cpu:.2f} s" if copy else ""
        print(
            f"{name:<52} {cost.cpu:6.2f} s of {limit.cpu:5.2f} {cost.memory:6.0f} MB of {limit.memory:4.0f}  {beside}"
        )
    return int(any(cost.cpu > limit.cpu or cost.memory > limit.memory for _, cost, limit, _ in rows))


def _cases(scratch: Path) -> list[Case]:
    plain, head, base, adapter, gemma3 = _prepared(scratch)
    lora, model = scratch / "lora.gguf", scratch / "model.gguf"
    numbers: list[Path | str] = [BIN / "adapter-check", head, "--base", base]
    headers = [*numbers, "--headers-only"]
    to_lora: list[Path | str] = [BIN / "adapter-to-gguf", plain, "--base", base, "-o", lora]
    untie: list[Path | str] = [BIN / "adapter-to-gguf", adapter, "--base", gemma3, "--untie", "-o", model]
    return [
        Case("adapter-check, Gemma-2B with lm_head, 254 tensors", numbers, 1, None, Cost(0.45, 60)),
        Case("adapter-check --headers-only, the same", headers, 1, None, Cost(0.15, 30)),
        Case("--to lora, Gemma-2B, 78 MB", to_lora, 0, lora, Cost(1.0, 84)),
        Case("--untie --to model, Gemma 3 270M, 703 MB", untie, 0, model, Cost(15, 600)),
    ]


_PREPARE = """
import sys
from pathlib import Path
from fixtures.generated import write_gemma_2b_adapter, write_gemma_2b_base, write_gemma_2b_head_adapter
from fixtures.real import GEMMA3
from fixtures.train import trained_adapter

def made(name, write):
    directory = Path(sys.argv[1], name)
    directory.mkdir()
    return write(directory)

print(made("plain", write_gemma_2b_adapter), made("head", write_gemma_2b_head_adapter), sep="\\n")
print(made("base", write_gemma_2b_base), trained_adapter("lm_head", GEMMA3), GEMMA3.bf16_gguf, sep="\\n")
"""


def _prepared(scratch: Path) -> list[Path]:
    """Generated Gemma-2B adapters and base; the real Gemma 3 270M's head adapter and bf16 base, cached."""
    command = [sys.executable, "-c", _PREPARE, str(scratch)]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [Path(line) for line in made.stdout.splitlines()[-5:]]


def _measured(case: Case) -> tuple[str, Cost, Cost, Cost | None]:
    _, *costs = [run(case.command, case.status) for _ in range(1 + N_RUNS)]
    cost = _median(costs)
    if case.output is None:
        return case.name, cost, case.limit, None
    copy: list[Path | str] = [shutil.which("cp") or "cp", case.output, case.output.with_suffix(".copy")]
    return case.name, cost, case.limit, _median([run(copy, 0) for _ in range(N_RUNS)])


def run(command: Sequence[str | Path], status: int) -> Cost:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    parts = [str(part) for part in command]
    process = subprocess.Popen(parts, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    _, wait_status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(wait_status)
    if process.returncode != status:
        raise SystemExit(f"{command[0]} ended with status {process.returncode}, {status} was expected")
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(median(cost.cpu for cost in costs), median(cost.memory for cost in costs))


if __name__ == "__main__":
    sys.exit(main())
