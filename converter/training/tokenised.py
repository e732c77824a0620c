"""Samples as tokens, and which of them are to be learned.

A sample is rendered whole and tokenised once, so that its ids are those of inference; what is to be learned is found by
the characters that a token covers. trl prepares prompts and completions to the same ids and labels, but cuts where two
tokenisations part (SFTTrainer._prepare_dataset in trl/trainer/sft_trainer.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from converter.errors import ConverterError
from converter.training.samples import Chat, Sample, Text
from converter.training.settings import Loss, TrainingSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

# What torch's cross entropy leaves out (ignore_index).
NOT_LEARNED: Final = -100
_Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tokenised:
    """``dataset`` has input_ids and labels. ``longest`` is the longest sample there was, in tokens, before any cut."""

    dataset: "Dataset"
    n_dropped: int
    n_truncated: int
    longest: int


@dataclass(frozen=True, slots=True)
class _Rendered:
    """``learned`` are the ranges of characters to learn; None is every token, whatever it stands for."""

    where: str
    text: str
    learned: tuple[_Span, ...] | None


@dataclass(frozen=True, slots=True)
class _Tokens:
    where: str
    ids: list[int]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.ids)

    def start(self, length: int) -> "_Tokens":
        return _Tokens(self.where, self.ids[:length], self.labels[:length])

    @property
    def teaches(self) -> bool:
        # The first token has nothing before it to be foretold from.
        return any(label != NOT_LEARNED for label in self.labels[1:])


def tokenised(samples: Sequence[Sample], tokenizer: "PreTrainedTokenizerBase", settings: TrainingSettings) -> Tokenised:
    """Raise ConverterError where a sample can't be rendered, has nothing to learn, or is too long."""
    from datasets import Dataset

    if not tokenizer.is_fast:
        raise ConverterError(
            f"{type(tokenizer).__name__} doesn't say which characters a token covers; give the base a tokenizer.json"
        )
    rendered = [_rendered(sample, tokenizer, settings.loss) for sample in samples]
    # A chat template writes the special tokens itself.
    everything = _tokens(rendered, tokenizer, add_special_tokens=not isinstance(samples[0], Chat))
    kept, n_truncated = _fitting(everything, settings)
    return Tokenised(
        Dataset.from_dict({"input_ids": [t.ids for t in kept], "labels": [t.labels for t in kept]}),
        n_dropped=len(everything) - len(kept),
        n_truncated=n_truncated,
        longest=max(map(len, everything)),
    )


def _fitting(everything: Sequence[_Tokens], settings: TrainingSettings) -> tuple[list[_Tokens], int]:
    """What is left of the samples within max_length, and how many of them were cut."""
    limit = settings.max_length
    too_long = [tokens for tokens in everything if len(tokens) > limit]
    if too_long and settings.overlong == "refuse":
        raise ConverterError(
            f"{len(too_long)} of {len(everything)} samples are longer than max_length {limit}, the first is "
            f"{too_long[0].where}; raise --max-length (the longest has {max(map(len, too_long))} tokens), "
            "or say --overlong drop or truncate"
        )
    cut = settings.overlong == "truncate"
    kept = [tokens.start(limit) for tokens in everything if cut or len(tokens) <= limit]
    kept = [tokens for tokens in kept if tokens.teaches]
    if not kept:
        raise ConverterError(f"no sample has anything to learn within max_length {limit}; raise --max-length")
    n_whole = len(everything) - len(too_long)
    return kept, len(kept) - n_whole


def _tokens(
    rendered: Sequence[_Rendered], tokenizer: "PreTrainedTokenizerBase", *, add_special_tokens: bool
) -> list[_Tokens]:
    encoded = tokenizer(
        [one.text for one in rendered],
        add_special_tokens=add_special_tokens,
        return_offsets_mapping=True,
        verbose=False,  # it would warn of samples over the model's length
    )
    every = zip(rendered, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return [_labelled(one, ids, offsets, tokenizer.bos_token_id) for one, ids, offsets in every]


def _labelled(rendered: _Rendered, ids: list[int], offsets: list[_Span], bos: int | None) -> _Tokens:
    # A text that brings its own BOS gets no second one.
    first = 1 if bos is not None and ids[:2] == [bos, bos] else 0
    labels = [
        token if rendered.learned is None or any(_meets(span, covered) for span in rendered.learned) else NOT_LEARNED
        for token, covered in zip(ids, offsets, strict=True)
    ]
    tokens = _Tokens(rendered.where, ids[first:], labels[first:])
    if not tokens.teaches:
        raise ConverterError(f"{rendered.where}: has no token to learn")
    return tokens


def _meets(learned: _Span, covered: _Span) -> bool:
    # Covering nothing, as a BOS does that the tokenizer added, is to meet nothing.
    return covered[0] < learned[1] and covered[1] > learned[0]


def _rendered(sample: Sample, tokenizer: "PreTrainedTokenizerBase", loss: Loss) -> _Rendered:
    if isinstance(sample, Chat):
        return _rendered_chat(sample, tokenizer, loss)
    if loss == "assistant":
        raise ConverterError(f"{sample.where}: has no assistant's turns, being no chat; use --loss completion or all")
    if isinstance(sample, Text):
        return _Rendered(sample.where, _ended(sample.text, tokenizer), None)
    prompt, text = sample.prompt, _ended(sample.prompt + sample.completion, tokenizer)
    return _Rendered(sample.where, text, None if loss == "all" else ((len(prompt), len(text)),))


def _ended(text: str, tokenizer: "PreTrainedTokenizerBase") -> str:
    end = tokenizer.eos_token
    if not isinstance(end, str):
        raise ConverterError("the base's tokenizer names no eos_token; wanted one to end samples with")
    return text if text.endswith(end) else text + end


def _rendered_chat(chat: Chat, tokenizer: "PreTrainedTokenizerBase", loss: Loss) -> _Rendered:
    if tokenizer.chat_template is None:
        raise ConverterError(
            f"{chat.where}: is a chat, and the base's tokenizer has no chat template; "
            "give one with --chat-template FILE, or data of prompt and completion"
        )
    whole = _template(chat, len(chat.messages), tokenizer)
    if loss == "all":
        return _Rendered(chat.where, whole, None)
    answers = [chat.completion]
    if loss == "assistant":
        answers = [range(i, i + 1) for i, message in enumerate(chat.messages) if message["role"] == "assistant"]
    return _Rendered(chat.where, whole, tuple(_span(chat, answer, whole, tokenizer, loss) for answer in answers))


def _span(chat: Chat, answer: range, whole: str, tokenizer: "PreTrainedTokenizerBase", loss: Loss) -> _Span:
    """The characters between what the model is prompted with and the end of its answer."""
    if not answer.start:
        raise ConverterError(f"{chat.where}: begins with an assistant's turn, which answers nothing; use --loss all")
    prompt = _template(chat, answer.start, tokenizer, add_generation_prompt=True)
    answered = _template(chat, answer.stop, tokenizer)
    if not answered.startswith(prompt) or not whole.startswith(answered):
        instead = "completion or all" if loss == "assistant" else "all"
        raise ConverterError(
            f"{chat.where}: the chat template renders turn {answer.start + 1} otherwise than it prompts for it, "
            f"or than it does within the whole; use --loss {instead}"
        )
    return len(prompt), len(answered)


def _template(
    chat: Chat, n_messages: int, tokenizer: "PreTrainedTokenizerBase", *, add_generation_prompt: bool = False
) -> str:
    from jinja2 import TemplateError

    try:
        text = tokenizer.apply_chat_template(
            list(chat.messages[:n_messages]),
            tools=list(chat.tools) or None,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    except (TemplateError, TypeError, ValueError) as error:
        raise ConverterError(f"{chat.where}: the chat template can't render it: {error}") from error
    return str(text)
