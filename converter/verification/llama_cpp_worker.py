"""The subprocess that runs llama.cpp: JSON requests on stdin, JSON replies on stdout, logits in .npy files.

llama.cpp answers a bad model by aborting the process (GGML_ASSERT), so it never runs in the verifying one.
Its own log goes to stderr, where the parent reads the reason of a death.
"""

import ctypes
import json
import os
import queue
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from converter.errors import ConverterError
from converter.verification import llama_cpp_library as lib

_LOGITS_BYTES: Final = 128 << 20  # what one decode may hold: 128 positions of Gemma's 262,144 tokens
_N_MODELS: Final = 3  # a verification goes to and fro between the deployed model, its base and other settings
_LORA_SCALE: Final = 1.0


class RefusedError(Exception):
    """llama.cpp said no and lives on."""


@dataclass(frozen=True, slots=True)
class Context:
    """A llama_context, the LoRA that it gets, and when: activated LoRAs come with tokens that switch them on."""

    handle: int
    lora: int | None
    invocation: tuple[int, ...]
    n_tokens_early: int

    def activation(self, sequence: Sequence[int]) -> int:
        """The first position with the LoRA on: at the last occurrence of the invocation tokens; behind all without."""
        if not self.invocation:
            return 0
        n = len(self.invocation)
        starts = (i for i in reversed(range(len(sequence) - n + 1)) if tuple(sequence[i : i + n]) == self.invocation)
        start = next(starts, None)
        return len(sequence) if start is None else max(0, start - self.n_tokens_early)


class Engine:
    """One llama.cpp with the last models kept loaded, so that many cases over one base cost one load."""

    def __init__(self, library: ctypes.CDLL, log: TextIO) -> None:
        self.api: Any = library  # ctypes functions take and give what _FUNCTIONS declares
        self.log_callback = lib.LogCallback(_log_to(log))  # kept: ctypes does not hold callbacks
        library.llama_log_set(self.log_callback, None)
        library.llama_backend_init()
        self.models: dict[tuple[object, ...], int] = {}  # the longest unused first

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to one request; ``refused`` instead of a result where llama.cpp said no."""
        handlers = {
            "describe": self.describe,
            "tokenize": self.tokenize,
            "logits": self.logits,
            "generate": self.generate,
            "release": self.release,
        }
        try:
            return {"result": handlers[request["do"]](request)}
        except RefusedError as refusal:
            return {"refused": str(refusal)}

    def describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Size of the vocabulary, and whether the model can tokenize."""
        vocab = self._vocab(request)
        n_vocab = self.api.llama_vocab_n_tokens(vocab)
        return {"n_vocab": n_vocab, "tokenizes": self.api.llama_vocab_type(vocab) != lib.VOCAB_NONE}

    def tokenize(self, request: Mapping[str, Any]) -> list[int]:
        """Token ids of ``text``, with the specials (BOS) that the model's own metadata asks for."""
        return self._tokens(self._vocab(request), request["text"], parse_special=request["parse_special"])

    def logits(self, request: Mapping[str, Any]) -> list[str]:
        """Logits at every position of every sequence: one file each, in order."""
        folder, sequences = Path(request["folder"]), request["sequences"]
        n_vocab = self.api.llama_vocab_n_tokens(self._vocab(request))
        files = [str(folder / f"{request['id']}-{i}.npy") for i in range(len(sequences))]
        with self._context(request, max(map(len, sequences), default=1)) as context:
            for file, sequence in zip(files, sequences, strict=True):
                shape = (len(sequence), n_vocab)
                out = np.lib.format.open_memmap(file, "w+", np.float32, shape)
                self.api.llama_memory_clear(self.api.llama_get_memory(context.handle), True)
                for begin, end in self._pieces(context, sequence):
                    self._decode_all(context, sequence[begin:end], out[begin:end])
                out.flush()
        return files

    def generate(self, request: Mapping[str, Any]) -> str:
        """Greedy continuation of ``prompt``, at most ``n_tokens``, up to the model's end of generation."""
        vocab = self._vocab(request)
        n_vocab = self.api.llama_vocab_n_tokens(vocab)
        tokens = self._tokens(vocab, request["prompt"], parse_special=True)
        new: list[int] = []
        with self._context(request, len(tokens) + request["n_tokens"]) as context:
            for begin, end in self._pieces(context, tokens):
                ahead = tokens[begin:end]
                if end < len(tokens):
                    self._decode(context, ahead, n_vocab)
            while len(new) < request["n_tokens"]:
                best = int(self._decode(context, ahead, n_vocab)[-1].argmax())
                if self.api.llama_vocab_is_eog(vocab, best):
                    break
                new.append(best)
                ahead = [best]
        return self._text(vocab, new)

    def release(self, _request: Mapping[str, Any]) -> None:
        """Free every model."""
        while self.models:
            self._free_oldest()

    def _load(self, request: Mapping[str, Any]) -> int:
        path, settings = Path(request["model"]), request["settings"]["model"]
        stat = path.stat()
        key = (str(path), stat.st_size, stat.st_mtime_ns, *sorted(settings.items()))
        model = self.models.pop(key, None)
        if model is None:
            self._make_room()
            params = _set(self.api.llama_model_default_params(), settings)
            model = self.api.llama_model_load_from_file(os.fsencode(path), params)
        if model is None:
            raise RefusedError(f"llama.cpp refuses to load {path.name}")
        self.models[key] = model
        return model

    def _make_room(self) -> None:
        while len(self.models) >= _N_MODELS:
            self._free_oldest()

    def _free_oldest(self) -> None:
        self.api.llama_model_free(self.models.pop(next(iter(self.models))))

    def _vocab(self, request: Mapping[str, Any]) -> int:
        vocab: int = self.api.llama_model_get_vocab(self._load(request))
        return vocab

    @contextmanager
    def _context(self, request: Mapping[str, Any], n_tokens: int) -> Iterator[Context]:
        # The adapter comes first: a context sizes its graphs by the adapters the model has by then.
        with self._lora(request) as lora:
            params = _set(self.api.llama_context_default_params(), request["settings"]["context"])
            params.n_ctx = params.n_batch = max(n_tokens, 32)
            params.n_threads = params.n_threads_batch = _n_cores()
            handle = self.api.llama_init_from_model(self._load(request), params)
            if handle is None:
                raise RefusedError("llama.cpp refuses to make a context")
            try:
                yield Context(handle, lora, self._invocation(lora), request["n_tokens_early"])
            finally:
                self.api.llama_free(handle)

    @contextmanager
    def _lora(self, request: Mapping[str, Any]) -> Iterator[int | None]:
        if request["lora"] is None:
            yield None
            return
        path = Path(request["lora"])
        lora = self.api.llama_adapter_lora_init(self._load(request), os.fsencode(path))
        if lora is None:
            raise RefusedError(f"llama.cpp refuses the LoRA {path.name}")
        try:
            yield lora
        finally:
            self.api.llama_adapter_lora_free(lora)

    def _invocation(self, lora: int | None) -> tuple[int, ...]:
        """The tokens that switch an activated LoRA on; none of an ordinary one."""
        n = self.api.llama_adapter_get_alora_n_invocation_tokens(lora) if lora else 0
        return tuple(self.api.llama_adapter_get_alora_invocation_tokens(lora)[:n]) if n else ()

    def _pieces(self, context: Context, sequence: Sequence[int]) -> Iterator[tuple[int, int]]:
        """The ranges of a sequence to decode one after the other, with the LoRA off in the first and on in the last."""
        begin = context.activation(sequence)
        for piece, loras in (((0, begin), []), ((begin, len(sequence)), [context.lora] if context.lora else [])):
            if piece[0] < piece[1]:
                self._attach(context, loras)
                yield piece

    def _attach(self, context: Context, loras: Sequence[int]) -> None:
        n = len(loras)
        pointers, scales = (ctypes.c_void_p * n)(*loras), (ctypes.c_float * n)(*[_LORA_SCALE] * n)
        if self.api.llama_set_adapters_lora(context.handle, pointers, n, scales):
            raise RefusedError("llama.cpp refuses to attach the LoRA")

    def _decode_all(self, context: Context, sequence: Sequence[int], out: np.ndarray) -> None:
        step = max(1, _LOGITS_BYTES // (out.shape[1] * out.itemsize))
        for begin in range(0, len(sequence), step):
            piece = sequence[begin : begin + step]
            out[begin : begin + len(piece)] = self._decode(context, piece, out.shape[1])

    def _decode(self, context: Context, tokens: Sequence[int], n_vocab: int) -> np.ndarray:
        """Logits at each of ``tokens``; a view that the next decode overwrites."""
        n = len(tokens)
        every = (ctypes.c_int8 * n)(*[1] * n)
        batch = lib.Batch(n_tokens=n, token=(ctypes.c_int32 * n)(*tokens), logits=every)
        status = self.api.llama_decode(context.handle, batch)
        if status:
            raise RefusedError(f"llama_decode gives status {status}")
        return np.ctypeslib.as_array(self.api.llama_get_logits(context.handle), (n, n_vocab))

    def _tokens(self, vocab: int, text: str, *, parse_special: bool) -> list[int]:
        data = text.encode()
        room = len(data) + 8  # a token is at least a byte; the specials come on top
        tokens = (ctypes.c_int32 * room)()
        n = self.api.llama_tokenize(vocab, data, len(data), tokens, room, True, parse_special)
        if n < 0:
            raise RefusedError(f"llama_tokenize gives {n}")
        return list(tokens[:n])

    def _text(self, vocab: int, tokens: Sequence[int]) -> str:
        ids, room = (ctypes.c_int32 * len(tokens))(*tokens), 64 * (len(tokens) + 1)
        text = ctypes.create_string_buffer(room)
        n = self.api.llama_detokenize(vocab, ids, len(tokens), text, room, False, False)
        return text.raw[: max(n, 0)].decode(errors="replace")


def _set(params: Any, fields: Mapping[str, int | bool]) -> Any:
    for name, value in fields.items():
        setattr(params, name, value)
    return params


def _n_cores() -> int:
    # Threads beyond the cores this process may use spin at ggml's barriers and slow the others down.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _log_to(log: TextIO) -> Any:
    def write(level: int, text: bytes, _: object) -> None:
        if level >= lib.LOG_WARN:
            log.write(text.decode(errors="replace"))
            log.flush()

    return write


def _replies() -> TextIO:
    # Whatever the library prints to stdout must not mix with the replies, so stdout becomes stderr.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _requests(pipe: TextIO) -> Iterator[str]:
    """The lines of a pipe that its writer closes by ending alone: then this process ends too, whatever it is at."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def collect() -> None:
        for line in pipe:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=collect, daemon=True).start()
    while True:
        yield lines.get()


def bound_memory(nbytes: int) -> None:
    """Let the process ask for so much memory; files that are mapped don't count. Linux alone.

    A file that makes llama.cpp ask for more is then refused, where the system would end whoever has most.
    """
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (nbytes, nbytes))


def main() -> None:
    """Answer requests until stdin closes. The first line says whether llama.cpp can be used at all."""
    replies = _replies()
    if sys.platform == "linux":
        bound_memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        engine = Engine(lib.load_library(), sys.stderr)
    except ConverterError as error:
        print(json.dumps({"unusable": error.message}), file=replies, flush=True)
        return
    print(json.dumps({"ready": lib.XLLAMACPP_VERSION}), file=replies, flush=True)
    for line in _requests(sys.stdin):
        print(json.dumps(engine.answer(json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
