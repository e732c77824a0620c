"""The parent's side of the llama.cpp worker: one long-lived subprocess, whose death is a result, not a crash.

Proof runs use an F32 KV cache, no flash attention and no repacked weights: llama.cpp's defaults raise the
noise floor on an F32 model from 3e-12 to 7e-6.
"""

import itertools
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Any, Final, Self

import numpy as np

from converter.errors import JUDGED_BAD, ConverterError
from converter.scratch import Scratch
from converter.verification.llama_cpp_library import find_library

_LOG_LINES: Final = 12
_START_SECONDS: Final = 120.0


class LlamaCppFailed(ConverterError):
    """llama.cpp refused a file, aborted, crashed or hung. ``log`` holds its last lines."""

    def __init__(self, reason: str, log: Sequence[str] = ()) -> None:
        super().__init__(_with_log(reason, log), status=JUDGED_BAD)
        self.reason = reason
        self.log = tuple(log)


def _with_log(reason: str, log: Sequence[str]) -> str:
    return f"{reason}; it logged: {' | '.join(map(str.strip, log))}" if log else reason


@dataclass(frozen=True, slots=True)
class Settings:
    """Fields of llama_model_params and llama_context_params that are to differ from llama.cpp's defaults.

    An activated LoRA goes on ``n_tokens_early`` before its invocation tokens: llama-server is one early, since it ends
    the batch without the LoRA at alora_invocation_start - 1 tokens (tools/server/server-context.cpp); PEFT is not.
    """

    model: MappingProxyType[str, int | bool] = field(default_factory=lambda: MappingProxyType({}))
    context: MappingProxyType[str, int | bool] = field(default_factory=lambda: MappingProxyType({}))
    n_tokens_early: int = 1


DEFAULTS: Final = Settings()
PROOF: Final = Settings(
    model=MappingProxyType({"n_gpu_layers": 0, "use_extra_bufts": False}),
    # GGML_TYPE_F32, LLAMA_FLASH_ATTN_TYPE_DISABLED; the last two keep a GPU out of the proof.
    context=MappingProxyType(
        {"type_k": 0, "type_v": 0, "flash_attn_type": 0, "offload_kqv": False, "op_offload": False}
    ),
    n_tokens_early=0,
)


class LlamaCpp:
    """llama.cpp in a worker that starts on the first call and again after a failure; the last models stay."""

    def __init__(self, *, timeout: float = 900.0) -> None:
        """``timeout`` in seconds holds for each call."""
        self._timeout = timeout
        self._ids = itertools.count()
        self._worker: _Worker | None = None
        self._folder = Scratch()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the worker and remove its files."""
        self._end_worker()
        self._folder.close()

    def logits(
        self,
        model: Path,
        sequences: Sequence[Sequence[int]],
        lora: Path | None = None,
        *,
        settings: Settings = PROOF,
    ) -> list[np.ndarray]:
        """Logits at every position: one float32 array (n_tokens, n_vocab) for each sequence of token ids.

        A LoRA with invocation tokens is on from their last occurrence, as with llama-server; without them it is off.
        """
        ids = [[int(token) for token in sequence] for sequence in sequences]
        files = self._ask("logits", model, settings, lora=_text(lora), sequences=ids)
        return [_take_array(Path(file)) for file in files]

    def tokenize(self, model: Path, text: str, *, parse_special: bool = False) -> list[int]:
        """Token ids of ``text`` by the model's own tokenizer; with ``parse_special`` control tokens in it count."""
        tokens: list[int] = self._ask("tokenize", model, PROOF, text=text, parse_special=parse_special)
        return tokens

    def n_vocab(self, model: Path) -> int:
        """How many tokens the model knows."""
        return int(self._ask("describe", model, PROOF)["n_vocab"])

    def tokenizes(self, model: Path) -> bool:
        """Whether the file carries a tokenizer (``tokenizer.ggml.model`` is not ``no_vocab``)."""
        return bool(self._ask("describe", model, PROOF)["tokenizes"])

    def generate(self, model: Path, prompt: str, n_tokens: int, lora: Path | None = None) -> str:
        """Greedy text after ``prompt``, with llama.cpp's own defaults. Special tokens in the prompt count."""
        text = self._ask("generate", model, DEFAULTS, lora=_text(lora), prompt=prompt, n_tokens=n_tokens)
        return str(text)

    def release(self) -> None:
        """Let go of the models that are loaded, if any are: others need the memory now."""
        if self._worker is not None:
            self._send({"do": "release"})

    def _ask(self, do: str, model: Path, settings: Settings, **more: Any) -> Any:
        request = {
            "do": do,
            "id": next(self._ids),
            "model": str(model.absolute()),
            "settings": {"model": dict(settings.model), "context": dict(settings.context)},
            "n_tokens_early": settings.n_tokens_early,
            "folder": str(self._folder.path),
            **more,
        }
        return self._send(request)

    def _send(self, request: dict[str, Any]) -> Any:
        worker = self._worker = self._worker or _Worker(self._folder.path)
        try:
            return worker.ask(request, self._timeout)
        except _DeathError as death:
            self._end_worker()
            raise LlamaCppFailed(str(death), worker.log()) from None

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None


class _DeathError(Exception):
    """The worker is gone, or was killed because it did not answer."""


class _Worker:
    """One subprocess and its pipes."""

    def __init__(self, folder: Path) -> None:
        find_library()  # a missing extra is told here, before a process is started for it
        self._log_path = folder / "llama.cpp.log"
        self._log_begin = 0
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "converter.verification.llama_cpp_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                env=_environment(),
            )
        self._replies: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._collect, args=[self._process.stdout], daemon=True).start()
        self._greet()

    def ask(self, request: dict[str, Any], timeout: float) -> Any:
        """The result of one request. Raises LlamaCppFailed on a refusal and _DeathError on a death."""
        self._log_begin = self._log_path.stat().st_size
        with suppress(OSError):  # a worker that is gone by now is noticed by its missing reply
            print(json.dumps(request), file=self._process.stdin, flush=True)
        reply = self._reply(timeout)
        if "refused" in reply:
            raise LlamaCppFailed(reply["refused"], self.log())
        return reply["result"]

    def log(self) -> list[str]:
        """The last lines llama.cpp logged during the current request."""
        text = self._log_path.read_bytes()[self._log_begin :].decode(errors="replace")
        return [line.rstrip() for line in text.splitlines() if line.strip()][-_LOG_LINES:]

    def end(self) -> None:
        """Stop the process and wait for it."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was written to a dead worker can't be flushed
                    pipe.close()

    def _greet(self) -> None:
        try:
            greeting = self._reply(_START_SECONDS)
        except _DeathError as death:
            self.end()
            raise ConverterError(_with_log(f"llama.cpp does not start: {death}", self.log())) from None
        if "unusable" in greeting:
            self.end()
            raise ConverterError(greeting["unusable"])

    def _collect(self, pipe: IO[str]) -> None:
        with suppress(ValueError):  # the pipe is closed under us when the worker is ended
            for line in pipe:
                self._replies.put(line)
        self._replies.put(None)

    def _reply(self, timeout: float) -> dict[str, Any]:
        try:
            line = self._replies.get(timeout=timeout)
        except queue.Empty:
            self._process.kill()
            raise _DeathError(f"llama.cpp did not answer within {timeout:g} s") from None
        if line is None:
            raise _DeathError(_cause_of_death(self._process.wait()))
        reply: dict[str, Any] = json.loads(line)
        return reply


def _environment() -> dict[str, str]:
    # -P keeps the current directory out of the worker's path, so the package's own parent is named.
    here = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    # Threads that spin while they wait made a greedy answer 7 to 25 times slower on two busy cores.
    waiting = {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive")}
    # Without GGML_NO_BACKTRACE ggml starts a debugger on an abort and waits for it.
    return {**os.environ, **waiting, "PYTHONPATH": path, "GGML_NO_BACKTRACE": "1"}


def _cause_of_death(code: int) -> str:
    if code >= 0:
        return f"llama.cpp ended the process with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"llama.cpp aborted the process ({name})" if name == "SIGABRT" else f"llama.cpp crashed ({name})"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _take_array(path: Path) -> np.ndarray:
    # Mapped, not read: three sets of a 262,144-token vocabulary would not fit beside the models.
    array: np.ndarray = np.load(path, mmap_mode="r")
    with suppress(PermissionError):  # Windows removes no mapped file; the folder goes at the end
        path.unlink()
    return array
