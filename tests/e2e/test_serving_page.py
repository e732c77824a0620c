"""docs/serving.md: its commands run in order, in a real llama-server, and each answer is what PEFT would have said."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.request import urlopen

import numpy as np
import pytest
from transformers import AutoTokenizer

from converter.derive.adapter import read_adapter
from converter.verification.reference import Reference
from fixtures.real import SMOLLM2
from fixtures.served_head import VOICES, chat_tokens, write_voices

pytestmark = [pytest.mark.llama, pytest.mark.model]

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "serving.md"
BLOCK: Final = re.compile(r"^```(sh|text|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PORT: Final = "8080"
NEAR = 0.1  # nats: the server's KV cache is in F16, so that of two tokens as likely it may take the other
START_SECONDS = 120


class Step(NamedTuple):
    """A block of the page, and what is shown as the answer to its last command."""

    kind: str
    code: str
    shown: str | None


def steps() -> Iterator[Step]:
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    for (kind, code), (next_kind, text) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if kind != "text":
            yield Step(kind, code, text.strip() if next_kind == "text" else None)


class Reader:
    """Types what the page says. A server runs until the page starts another one; its port is one that is free."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._server, self.url = directory, None, ""
        binaries = directory / "bin"
        binaries.mkdir()
        if not shutil.which("llama-server"):
            program = binaries / "llama-server"
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m examples.llama_server "$@"\n')
            program.chmod(0o755)
        path = os.pathsep.join([str(binaries), str(Path(sys.executable).parent), os.environ["PATH"]])
        self._environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "LLAMA_ARG_THREADS": "2"}

    _server: "subprocess.Popen[bytes] | None"

    def types(self, code: str) -> str:
        """What the last command of a block prints."""
        printed = ""
        for command in re.split(r"\n(?=[a-z])", code.strip()):
            if command.startswith("llama-server"):
                self._start(command)
            else:
                printed = self._run(["bash", "-c", command.replace(PORT, self._port)])
        return printed

    def runs_python(self, code: str) -> str:
        return self._run([sys.executable, "-c", code])

    def stops(self) -> None:
        if self._server:
            self._server.kill()
            self._server.wait()

    def _run(self, arguments: Sequence[str]) -> str:
        result = subprocess.run(
            arguments, cwd=self._directory, env=self._environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, (arguments, result.stdout, result.stderr)
        return result.stdout

    @property
    def _port(self) -> str:
        return self.url.rpartition(":")[2] or PORT

    def _start(self, command: str) -> None:
        self.stops()
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{one.getsockname()[1]}"
        log = self._directory / "llama-server.log"
        with log.open("wb") as file:
            self._server = subprocess.Popen(
                shlex.split(command.replace(PORT, self._port)),
                cwd=self._directory, env=self._environment, stdout=file, stderr=file,
            )  # fmt: skip
        end = time.monotonic() + START_SECONDS
        while not _is_ready(self.url):
            assert self._server.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)


def _is_ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=10) as answer:  # noqa: S310  our own
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    it = tmp_path_factory.mktemp("serving")
    write_voices(it)
    return it


@pytest.fixture(scope="module")
def reader(directory: Path) -> Iterator[Reader]:
    it = Reader(directory)
    yield it
    it.stops()


@pytest.fixture(scope="module")
def references(directory: Path) -> dict[str, Reference]:
    return {voice: Reference(SMOLLM2.hf, read_adapter(directory / voice)) for voice in VOICES}


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(SMOLLM2.hf)


def is_said_by(reference: Reference, question: str, answer: str, *, with_adapter: bool = True) -> bool:
    """Whether each token of an answer is the likeliest one, by PEFT, behind those before it."""
    asked, said = chat_tokens(tokenizer(), question), tokenizer()(answer).input_ids
    sequence = [*asked, *said]
    logits = reference.logits(sequence) if with_adapter else reference.base_logits(sequence)
    rows = logits[len(asked) - 1 : -1].astype(np.float64)
    return bool(said) and bool(np.all(rows.max(axis=1) - rows[np.arange(len(said)), said] <= NEAR))


def voice_of(shown: str) -> str:
    return "keeper" if shown.startswith("Keeper") else "poet"


def test_the_page_word_by_word(reader: Reader, directory: Path, references: dict[str, Reference]) -> None:
    answers = []
    for step in steps():
        if step.kind == "sh":
            printed = reader.types(step.code)
        elif "llama_cpp" not in step.code:
            answers.append(("keeper", question_in(step.code), reader.runs_python(step.code).strip()))
            continue
        elif _has_llama_cpp_python():
            answers.append(("poet", question_in(step.code), reader.runs_python(step.code).strip()))
            continue
        if step.shown:
            answer = json.loads(printed)["choices"][0]["message"]["content"]
            assert answer.startswith(step.shown)
            answers.append((voice_of(step.shown), question_in(step.code), answer))
    assert len(answers) >= 5
    for voice, question, answer in answers:
        (other,) = VOICES.keys() - {voice}
        assert is_said_by(references[voice], question, answer), (voice, answer)
        assert not is_said_by(references[other], question, answer)
        assert not is_said_by(references[voice], question, answer, with_adapter=False)
    modelfile = (directory / "keeper.Modelfile").read_text(encoding="utf-8").splitlines()
    assert 'SYSTEM """You are a helpful AI assistant named SmolLM, trained by Hugging Face"""' in modelfile


QUESTION = "What is the best way to spend a rainy day?"
SERVED = "llama-server -m served/untied-base.gguf --port 8080"
BOTH_OFF = "--lora-scaled served/lora.gguf:0,served/poet.gguf:0"


class Answer(NamedTuple):
    """The beginning of an answer, how likely its first token was, and how much of the prompt was not computed anew."""

    text: str
    log_probability: float
    n_cached: int


def answered(reader: Reader, question: str = QUESTION, system: str = "", **more: object) -> Answer:
    messages = [{"role": "user", "content": question}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    chat = {"temperature": 0, "max_tokens": 8, "logprobs": True, "messages": messages, **more}
    printed = reader.types(f"curl -s http://127.0.0.1:8080/v1/chat/completions -d {shlex.quote(json.dumps(chat))}")
    answer = json.loads(printed)
    (choice,) = answer["choices"]
    first = choice["logprobs"]["content"][0]["logprob"]
    return Answer(choice["message"]["content"], first, answer["timings"]["cache_n"])


def set_for_all(reader: Reader, *loras: dict[str, float]) -> None:
    reader.types(f"curl -s http://127.0.0.1:8080/lora-adapters -d {shlex.quote(json.dumps(loras))}")


@pytest.fixture(scope="module")
def served(reader: Reader) -> Reader:
    (both,) = (step.code for step in steps() if "--lora-scaled" in step.code)
    reader.types(both)
    return reader


@pytest.mark.thorough
def test_without_the_prompt_cache_every_swap_is_exact(served: Reader, references: dict[str, Reference]) -> None:
    set_for_all(served, {"id": 1, "scale": 1})
    letter = answered(served).text
    set_for_all(served)
    plain = answered(served).text
    set_for_all(served, {"id": 0, "scale": 1})
    log = answered(served).text
    assert is_said_by(references["poet"], QUESTION, letter)
    assert is_said_by(references["poet"], QUESTION, plain, with_adapter=False)
    assert is_said_by(references["keeper"], QUESTION, log)
    assert len({letter, plain, log}) == 3


@pytest.mark.thorough
def test_what_the_page_says_goes_wrong_without_a_word(served: Reader, references: dict[str, Reference]) -> None:
    base = references["keeper"]
    served.types(f"{SERVED} {BOTH_OFF}")
    assert is_said_by(base, QUESTION, answered(served, lora=[{"id": 7, "scale": 1}]).text, with_adapter=False)
    assert is_said_by(base, QUESTION, answered(served, model="keeper").text, with_adapter=False)
    set_for_all(served, {"id": 1, "scale": 1})
    answered(served, cache_prompt=False)
    set_for_all(served)
    mixed, exact, again = answered(served), answered(served, cache_prompt=False), answered(served)
    assert (mixed.n_cached > 30, exact.n_cached, again.n_cached) == (True, 0, mixed.n_cached)
    assert abs(mixed.log_probability - again.log_probability) > 0.001  # the same one computed by the letter's cache
    assert is_said_by(base, QUESTION, exact.text, with_adapter=False)

    served.types(f"{SERVED} --lora served/lora.gguf,served/poet.gguf --lora-init-without-apply --no-cache-prompt")
    assert not is_said_by(base, QUESTION, answered(served).text, with_adapter=False)


@pytest.mark.thorough
def test_a_prompt_comes_back_out_of_the_cache_in_ram(served: Reader) -> None:
    """Between requests that each name their adapter: the second one of a question is answered from the first one's."""
    log, letter = ([{"id": i, "scale": 1}] for i in range(2))
    other = "Name three rivers of Europe, and say where each one ends."

    def n_cached_after_others() -> int:
        answered(served, lora=log)
        answered(served, other, "Be short.", lora=letter)
        return answered(served, lora=letter).n_cached

    served.types(f"{SERVED} {BOTH_OFF}")
    assert n_cached_after_others() > 30
    served.types(f"{SERVED} {BOTH_OFF} --cache-ram 0")
    assert n_cached_after_others() < 5  # what both prompts begin with, by the same adapter


def question_in(code: str) -> str:
    (question,) = re.findall(r'"content": "([^"]*)"', code)
    return str(question)


def _has_llama_cpp_python() -> bool:
    from importlib.util import find_spec

    return find_spec("llama_cpp") is not None
