"""What training costs in general knowledge: perplexity on texts that have nothing to do with the task.

general_text.txt is self-made for this project and under its licence: plain paragraphs on many subjects. Its absolute
perplexity says little; how it grows from the base to the base with its adapter says what was forgotten.
Perplexity: https://huggingface.co/docs/transformers/perplexity
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from converter.errors import ConverterError
from converter.read.files import read_text
from converter.read.limits import TEXT_NBYTES

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

_BUNDLED: Final = Path(__file__).with_name("general_text.txt")


@dataclass(frozen=True, slots=True)
class Perplexity:
    """``n_tokens`` are those that were foretold: all but the first of each window."""

    value: float
    n_tokens: int


def general_texts(path: Path | None) -> tuple[str, ...]:
    """The paragraphs of a file, or of the bundled one; empty lines part them."""
    text = read_text(path or _BUNDLED, TEXT_NBYTES)
    paragraphs = tuple(paragraph.strip() for paragraph in re.split(r"\n\s*\n", text) if paragraph.strip())
    if not paragraphs:
        raise ConverterError(f"{path}: holds no text; wanted paragraphs with empty lines between them")
    return paragraphs


def perplexity(
    model: "nn.Module", tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_length: int
) -> Perplexity:
    """Score each text by itself, in windows of ``max_length`` tokens that don't overlap."""
    import torch

    total, n_tokens = 0.0, 0
    with _evaluating(model), torch.inference_mode():
        for ids in _windows(tokenizer, texts, max_length):
            total += _negative_log_likelihood(model, ids)
            n_tokens += len(ids) - 1
    if not n_tokens:
        raise ConverterError("the general text has no two tokens in a row; wanted some paragraphs")
    return Perplexity(_exp(total / n_tokens), n_tokens)


def _windows(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], max_length: int) -> Iterator[list[int]]:
    for text in texts:
        ids: list[int] = tokenizer(text, verbose=False)["input_ids"]
        yield from (window for i in range(0, len(ids), max_length) if len(window := ids[i : i + max_length]) > 1)


def _negative_log_likelihood(model: "nn.Module", ids: list[int]) -> float:
    import torch
    from torch.nn.functional import cross_entropy

    device = next(model.parameters()).device
    tokens = torch.tensor([ids], device=device)
    logits = model(input_ids=tokens).logits[0, :-1]
    return float(cross_entropy(logits.float(), tokens[0, 1:], reduction="sum"))


@contextmanager
def _evaluating(model: "nn.Module") -> Iterator[Any]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _exp(value: float) -> float:
    """A model that fell apart has an infinite perplexity, and no OverflowError."""
    return math.exp(value) if value < 700 else math.inf
