"""Ten thousand spoilt inputs: each is refused, judged or converted, within 2 s and 200 MB (`make fuzz` runs more)."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is counted by /proc")

SEED = int(os.environ.get("FUZZ_SEED", "0"))
COUNT = int(os.environ.get("FUZZ_COUNT", "10000"))
N_PARTS = 4  # to be run side by side


def fuzzed(kept: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.fuzz.harness", "--seed", str(SEED), "--keep", str(kept), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60 + COUNT)


@pytest.mark.parametrize("part", range(N_PARTS))
def test_no_input_does_what_none_may_do(part: int, tmp_path: Path) -> None:
    count = COUNT // N_PARTS
    ran = fuzzed(tmp_path, "--begin", str(part * count), "--count", str(count))
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr[-2000:]}"
    assert f"{count} of {count}, 0 faults" in ran.stderr


@pytest.mark.parametrize(
    ("plant", "said"), [("crash", "KeyError: 'planted'"), ("loop", "_TooLong"), ("growth", "MB (at most 200)")]
)
def test_a_planted_fault_is_found_and_its_files_are_kept(plant: str, said: str, tmp_path: Path) -> None:
    ran = fuzzed(tmp_path, "--count", "1", "--plant", plant)
    assert ran.returncode == 1
    assert said in ran.stdout
    assert any(tmp_path.iterdir())


def test_a_run_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """Within a command, which takes the signal for its own."""
    command = [sys.executable, "-m", "tests.fuzz.harness", "--count", "1000000", "--keep", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr
        assert running.stderr.readline().startswith("1000 of")
        running.terminate()
        assert running.wait(20) == 128 + signal.SIGTERM
