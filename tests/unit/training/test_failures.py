"""Memory and disk run out: one line that helps. All other failures pass untouched."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
import torch
from safetensors import SafetensorError

from converter.errors import ConverterError
from converter.training.failures import clear_failures
from converter.training.settings import TrainingSettings

SETTINGS = TrainingSettings(base=Path("base"), data="data", output=Path("out"))
CPU = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "


def line_of(error: Exception, settings: TrainingSettings = SETTINGS) -> str:
    with pytest.raises(ConverterError) as caught, clear_failures(settings):
        raise error
    assert caught.value.status == 2
    assert caught.value.__cause__ is error
    return str(caught.value)


# Imports first: they need more room than is left then.
_EXHAUSTING: Final = """
import resource
from pathlib import Path
import numpy, torch
from converter.errors import ConverterError
from converter.training.failures import clear_failures
from converter.training.settings import TrainingSettings

pages = int(Path("/proc/self/statm").read_text().split()[0])
room = pages * resource.getpagesize() + 300_000_000
resource.setrlimit(resource.RLIMIT_AS, (room, room))
torch.ones(10_000_000)  # there is room for less
for wasteful in (
    lambda: torch.ones(300_000_000),
    lambda: torch.ones(7000, 7) @ torch.ones(7, 50_000),
    lambda: numpy.ones(100_000_000),
    lambda: bytearray(10**9),
):
    try:
        with clear_failures(TrainingSettings(Path("base"), "data", Path("out"))):
            wasteful()
    except ConverterError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sets Linux's limit of a process's memory")
def test_memory_that_is_not_there() -> None:
    ended = subprocess.run([sys.executable, "-c", _EXHAUSTING], capture_output=True, text=True, check=True)
    # numpy says 763. MiB, and Python not how much.
    wanted = (": wanted 1.2 GB more", ": wanted 1.4 GB more", ": wanted 800 MB more", "")
    remedies = (
        "try a smaller --per-device-train-batch-size (now 4), --gradient-checkpointing, --dtype bfloat16 or a smaller "
        "--max-length (now 1024)"
    )
    assert ended.stdout.splitlines() == [f"out of memory{amount}; {remedies}" for amount in wanted]


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (RuntimeError(f"{CPU}1200000000 bytes. Error code 12 (Cannot allocate memory)"), ": wanted 1.2 GB more"),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 5000000 bytes."),
            ": wanted 5.0 MB",
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.20 GiB. GPU 0 has 8 GiB"), ": wanted 1.3 GB"),
        (torch.OutOfMemoryError("HIP out of memory. Tried to allocate 20.00 MiB."), ": wanted 21.0 MB more"),
        (
            RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB). Tried to allocate 2.00 GB"),
            "wanted 2.1 GB",
        ),
        (RuntimeError("CUDA error: out of memory"), "out of memory; try"),
        (RuntimeError("unable to mmap 900 bytes from file <x>: Cannot allocate memory (12)"), "out of memory; try"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "out of memory; try"),
        (SafetensorError("Error: I/O error: Cannot allocate memory (os error 12)"), "out of memory; try"),
        (MemoryError(), "out of memory; try"),
    ],
)
def test_each_way_of_saying_it(error: Exception, wanted: str) -> None:
    assert wanted in line_of(error)


@pytest.mark.parametrize(
    ("settings", "remedies"),
    [
        (
            replace(SETTINGS, per_device_train_batch_size=1, gradient_checkpointing=True, dtype="bfloat16"),
            "a smaller --max-length (now 1024)",
        ),
        (
            replace(SETTINGS, per_device_train_batch_size=1, dtype="float32", max_length=64),
            "--gradient-checkpointing, --dtype bfloat16 or a smaller --max-length (now 64)",
        ),
        (
            replace(SETTINGS, head="full", gradient_checkpointing=True, dtype="bfloat16"),
            "a smaller --per-device-train-batch-size (now 4), --head lora or a smaller --max-length (now 1024)",
        ),
    ],
)
def test_only_what_can_still_help_is_named(settings: TrainingSettings, remedies: str) -> None:
    assert line_of(MemoryError(), settings) == f"out of memory; try {remedies}"


@pytest.mark.parametrize(("has_gpu", "is_named"), [(True, False), (False, True)])
def test_auto_is_bfloat16_already_on_a_gpu(has_gpu: bool, is_named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert ("--dtype" in line_of(MemoryError())) is is_named


@pytest.mark.parametrize(
    ("error", "path"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "cache/data.arrow"), "cache/data.arrow"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "out"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "out"),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "out"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), "out"),
    ],
)
def test_a_full_disk(error: Exception, path: str) -> None:
    assert line_of(error) == f"{path}: no space left on its disk"


def test_the_cause_counts_where_another_module_took_it_for_a_bad_file() -> None:
    error = ConverterError("base: transformers can't load this base")
    error.__cause__ = MemoryError()
    assert line_of(error).startswith("out of memory; try")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        RuntimeError("PytorchStreamReader failed reading zip archive"),
        ConverterError("out of memory.jsonl: no such file"),
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x"),
        SafetensorError("Error while deserializing header: header too large"),
        ValueError("out of memory"),
        KeyboardInterrupt(),
    ],
)
def test_all_else_passes_untouched(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, clear_failures(SETTINGS):
        raise error
    assert caught.value is error
    assert caught.value.__cause__ is None
