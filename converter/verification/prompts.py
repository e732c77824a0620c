"""The token sequences a verification runs on: a file's, the built-in texts, or random ids without a tokenizer.

Prompt files hold one text a line; token files one sequence a line, ids separated by spaces or commas.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from converter.errors import ConverterError
from converter.read.files import read_text
from converter.read.limits import TEXT_NBYTES
from converter.verification.llama_cpp import LlamaCpp

Sequences = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class PromptFile:
    """Texts, one a line."""

    path: Path


@dataclass(frozen=True, slots=True)
class TokenFile:
    """Token ids, a sequence a line."""

    path: Path


Prompts = PromptFile | TokenFile | Sequences | None

_N_RANDOM: Final = (12, 24)  # sequences, tokens in each
_SEED: Final = 20
_DIGITS: Final = 9  # of an id
_BATCH_TOKENS: Final = 1024


def sequences_of(prompts: Prompts, llama: LlamaCpp, model: Path) -> Sequences:
    """The token sequences of what is given, in the model's own tokens; without anything those of built-in texts."""
    match prompts:
        case PromptFile(path):
            return _sequences_of_prompts(llama, model, path)
        case TokenFile(path):
            return sequences_of_tokens(path, llama.n_vocab(model))
        case None:
            return _built_in_sequences(llama, model)
        case _:
            return prompts


def _built_in_sequences(llama: LlamaCpp, model: Path) -> Sequences:
    """The built-in texts in the model's own tokens; seeded random ids where it has no tokenizer."""
    if not llama.tokenizes(model):
        return random_sequences(llama.n_vocab(model))
    text = files("converter.verification").joinpath("prompts.txt").read_text(encoding="utf-8")
    return _tokenize(llama, model, text.splitlines())


def random_sequences(n_vocab: int) -> Sequences:
    """The same ids on every run."""
    draw = random.Random(_SEED)  # noqa: S311  no secret
    n_sequences, n_tokens = _N_RANDOM
    return tuple(tuple(draw.randrange(n_vocab) for _ in range(n_tokens)) for _ in range(n_sequences))


def _sequences_of_prompts(llama: LlamaCpp, model: Path, path: Path) -> Sequences:
    """The texts of a prompt file in the model's own tokens; control tokens in them count."""
    lines = [line for line in read_text(path, TEXT_NBYTES).splitlines() if line.strip()]
    if not llama.tokenizes(model):
        raise ConverterError(f"{model}: has no tokenizer (tokenizer.ggml.model is no_vocab); give ids with --tokens")
    return _tokenize(llama, model, lines, parse_special=True) or _refuse_empty(path)


def sequences_of_tokens(path: Path, n_vocab: int) -> Sequences:
    """The ids of a token file."""
    lines = [line.replace(",", " ").split() for line in read_text(path, TEXT_NBYTES).splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        for word in line:
            if not word.isdecimal() or len(word) > _DIGITS or int(word) >= n_vocab:
                raise ConverterError(f"{path}: sequence {number} has {word[:40]!r}, wanted ids from 0 to {n_vocab - 1}")
    return tuple(tuple(map(int, line)) for line in lines) or _refuse_empty(path)


def invoked(sequences: Sequences, invocation: tuple[int, ...]) -> Sequences:
    """The sequences with an activated LoRA's tokens in each: in the middle, where one lacks them."""
    return tuple(sequence if _holds(sequence, invocation) else _with(sequence, invocation) for sequence in sequences)


def _holds(sequence: tuple[int, ...], part: tuple[int, ...]) -> bool:
    return any(sequence[i : i + len(part)] == part for i in range(len(sequence) - len(part) + 1))


def _with(sequence: tuple[int, ...], part: tuple[int, ...]) -> tuple[int, ...]:
    middle = len(sequence) // 2
    return (*sequence[:middle], *part, *sequence[middle:])


def batches(sequences: Sequences, longest_shared: int) -> Iterator[Sequences]:
    """The sequences in groups that run together, padded to the longest; one beyond ``longest_shared`` runs alone."""
    batch: Sequences = ()
    for sequence in sequences:
        longest = max(map(len, (*batch, sequence)))
        if batch and (longest > longest_shared or longest * (len(batch) + 1) > _BATCH_TOKENS):
            yield batch
            batch = ()
        batch = (*batch, sequence)
    if batch:
        yield batch


def _tokenize(llama: LlamaCpp, model: Path, texts: list[str], *, parse_special: bool = False) -> Sequences:
    return tuple(tuple(llama.tokenize(model, text, parse_special=parse_special)) for text in texts)


def _refuse_empty(path: Path) -> Sequences:
    raise ConverterError(f"{path}: holds nothing to run")
