"""The process that runs llama.cpp: it ends with the one that asks, and takes no endless memory."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixtures.tiny import TinyModel

pytestmark = [
    pytest.mark.llama,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and bounds memory as Linux does"),
]
ASKS = """
import sys
from pathlib import Path
from converter.verification.llama_cpp import LlamaCpp
tokens = [5] * int(sys.argv[2])
with LlamaCpp() as worker:
    worker.n_vocab(Path(sys.argv[1]))
    print("asking", flush=True)
    worker.logits(Path(sys.argv[1]), [tokens] * 1000)
"""
BOUND = """
from converter.verification.llama_cpp_worker import bound_memory
bound_memory(1 << 30)
bytearray(1 << 29)
try:
    bytearray(1 << 30)
except MemoryError:
    print("refused")
"""


def worker_of(process: "subprocess.Popen[str]") -> int:
    children = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/children")]
    (worker,) = "".join(children).split()
    return int(worker)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_ends_with_a_killed_parent_in_the_middle_of_a_request() -> None:
    model = TinyModel("llama", tied=False)
    command = [sys.executable, "-c", ASKS, str(model.gguf), "200"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout
    assert process.stdout.readline() == "asking\n"
    worker = worker_of(process)
    time.sleep(1)
    assert is_running(worker)
    process.kill()
    process.communicate()
    end = time.monotonic() + 10
    while is_running(worker) and time.monotonic() < end:
        time.sleep(0.1)
    left = is_running(worker)
    if left:
        os.kill(worker, signal.SIGKILL)
    assert not left


def test_it_asks_for_no_more_memory_than_its_bound() -> None:
    ran = subprocess.run([sys.executable, "-c", BOUND], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "refused\n"
