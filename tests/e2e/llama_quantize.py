"""llama-quantize itself: llama_model_quantize of llama-cpp-python, in a process of its own, for llama.cpp may abort.

llama-cpp-python ships no wheels: `make test` compiles it where there is a compiler.
API: https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h
"""

import ctypes
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

from gguf import GGMLQuantizationType

_NEXT: Final = "--- next file\n"
INSTALLED: Final = find_spec("llama_cpp") is not None
_OF_LOG: Final = re.compile(r"\] +(\S+) +- \[.*?type = +(\w+),(?:.*\((\w+)\)$)?")


@dataclass(frozen=True, slots=True)
class Asked:
    """llama-quantize's arguments; ``imatrix`` is read by libgguf, which is not our reader."""

    file_type: str
    imatrix: str | None = None
    tensor_types: tuple[tuple[str, str], ...] = ()
    output: str | None = None
    embedding: str | None = None
    requantize: bool = False
    dry_run: bool = False


class Job(NamedTuple):
    """A GGUF to quantise, and where to."""

    source: Path
    target: Path
    asked: Asked


def llama_quantize(*jobs: Job) -> None:
    """Write each job's target, as ``llama-quantize ... source target file_type`` does."""
    _run(jobs)


def llama_types(source: Path, *asked: Asked) -> list[dict[str, str]]:
    """For each of ``asked``, the type that every tensor of ``source`` would get; its numbers aren't looked at."""
    log = _run([Job(source, source, replace(one, dry_run=True)) for one in asked])
    return [
        {match[1]: (match[3] or match[2]).upper() for match in map(_OF_LOG.search, part.splitlines()) if match}
        for part in log.split(_NEXT)[1:]
    ]


def _run(jobs: Sequence[Job]) -> str:
    data = json.dumps([[str(job.source), str(job.target), asdict(job.asked)] for job in jobs])
    done = subprocess.run([sys.executable, __file__], input=data, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def main() -> int:
    for source, target, settings in json.load(sys.stdin):
        os.write(2, _NEXT.encode())  # llama.cpp doesn't write through Python's buffer
        if status := _quantize(source, target, Asked(**settings)):
            return status
    return 0


def _quantize(source: str, target: str, asked: Asked) -> int:
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{asked.file_type}")
    params.allow_requantize, params.dry_run = asked.requantize, asked.dry_run
    if asked.output:
        params.output_tensor_type = GGMLQuantizationType[asked.output]
    if asked.embedding:
        params.token_embedding_type = GGMLQuantizationType[asked.embedding]
    if asked.tensor_types:
        params.tt_overrides = _overrides(llama_cpp, asked)
    kept = _imatrix(llama_cpp, asked.imatrix) if asked.imatrix else ()
    if kept:
        params.imatrix = kept[0]
    return int(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))


def _overrides(llama_cpp: Any, asked: Asked) -> Any:
    rows = [(pattern.encode(), GGMLQuantizationType[name]) for pattern, name in asked.tensor_types]
    overrides = (llama_cpp.llama_model_tensor_override * (len(rows) + 1))()
    for entry, (pattern, number) in zip(overrides, rows, strict=False):
        entry.pattern, entry.type = pattern, number
    return overrides


def _imatrix(llama_cpp: Any, path: str) -> tuple[Any, Any]:
    """The structs, and the numbers that they point to."""
    from libgguf import load_imatrix

    values = load_imatrix(path)
    entries = (llama_cpp.llama_model_imatrix_data * (len(values) + 1))()
    for entry, (name, numbers) in zip(entries, values.items(), strict=False):
        entry.name, entry.size = name.encode(), numbers.size
        entry.data = numbers.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return entries, values


if __name__ == "__main__":
    sys.exit(main())
