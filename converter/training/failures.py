"""What becomes of a run that wants more memory or disk than there is: one clear line.

torch has an exception of its own for GPUs alone; its other allocators raise RuntimeError with these words:
c10/core/impl/alloc_cpu.cpp, aten/src/ATen/mps/MPSAllocator.mm; its zip writer: caffe2/serialize/inline_container.cc.
The libraries in Rust put the system's words, and its number, in an exception that is no OSError.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from safetensors import SafetensorError

from converter.errors import ConverterError
from converter.report.sizes import size_text
from converter.training.settings import TrainingSettings

_MEMORY: Final = re.compile(
    r"out of memory|(can't|cannot) allocate memory|not enough memory|os error 12\)", re.IGNORECASE
)
_DISK: Final = re.compile(r"os error 28\)|PytorchStreamWriter failed|inline_container.*unexpected pos")
_WANTED: Final = re.compile(r"allocate ([\d.]+) ?([kMGTPE]?)i?B|allocate (\d+) bytes", re.IGNORECASE)
_PREFIXES: Final = "kmgtpe"


@contextmanager
def clear_failures(settings: TrainingSettings) -> Iterator[None]:
    """Raise ConverterError where memory or disk ran out, whoever noticed; all else passes as it is."""
    try:
        yield
    except (ConverterError, MemoryError, OSError, RuntimeError, SafetensorError) as error:
        for cause in _causes(error):
            if _is_memory(cause):
                raise ConverterError(_memory_line(str(cause), settings)) from error
            if _is_disk(cause):
                raise ConverterError(f"{_place(cause, settings)}: no space left on its disk") from error
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What it came from, too: another module may have taken it for a fault of the file it was reading."""
    cause: BaseException | None = error
    while cause:
        if not isinstance(cause, ConverterError):
            yield cause
        cause = cause.__cause__


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(_MEMORY.search(str(error)))


def _is_disk(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    return bool(_DISK.search(str(error)))


def _place(error: BaseException, settings: TrainingSettings) -> str:
    # A write to an open file fails without naming it; all of a run's own are beside its output.
    named = error.filename if isinstance(error, OSError) else None
    return str(named or settings.output)


def _memory_line(message: str, settings: TrainingSettings) -> str:
    nbytes = _wanted_nbytes(message)
    wanted = f": wanted {size_text(nbytes)} more" if nbytes else ""
    *others, last = _remedies(settings)
    return f"out of memory{wanted}; try {', '.join(others)}{' or ' if others else ''}{last}"


def _remedies(settings: TrainingSettings) -> Iterator[str]:
    """What these settings leave to be tried."""
    if settings.per_device_train_batch_size > 1:
        yield f"a smaller --per-device-train-batch-size (now {settings.per_device_train_batch_size})"
    if not settings.gradient_checkpointing:
        yield "--gradient-checkpointing"
    if settings.head == "full":
        yield "--head lora"
    # auto is bfloat16 on a GPU.
    if settings.dtype == "float32" or (settings.dtype == "auto" and not torch.cuda.is_available()):
        yield "--dtype bfloat16"
    yield f"a smaller --max-length (now {settings.max_length})"


def _wanted_nbytes(message: str) -> float | None:
    found = _WANTED.search(message)
    if not found:
        return None
    number, prefix, nbytes = found.groups()
    return float(nbytes) if nbytes else float(number) * 1024 ** (1 + _PREFIXES.index(prefix.lower()) if prefix else 0)
