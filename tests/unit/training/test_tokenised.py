from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from converter.errors import ConverterError
from converter.training.samples import Chat, Completion, Sample, Text
from converter.training.settings import Overlong, TrainingSettings
from converter.training.tokenised import NOT_LEARNED, tokenised
from fixtures.real import GEMMA3, SMOLLM2, RealModel
from fixtures.trained_tokenizers import write_byte_level, write_sentencepiece

SETTINGS = TrainingSettings(base=Path("base"), data="data", output=Path("output"), max_length=200)
CHATML = (
    "{% for m in messages %}<|begin|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
# As Gemma's: it writes the BOS, has another name for the assistant, and refuses what it doesn't know.
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# As those of reasoning models: what the assistant thought is left out of all turns but the last.
FORGETFUL = (
    "{% for m in messages %}{{ m.role }}: {{ m.content if loop.last else m.content.split('=')[-1] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@pytest.fixture(scope="module", params=["no BOS", "BOS", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    directory = tmp_path_factory.mktemp("tokenizer")
    match request.param:
        case "no BOS":
            write_byte_level("smollm", directory)
        case "BOS":
            write_byte_level("llama-bpe", directory)
        case _:
            write_sentencepiece(directory)
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory)
    loaded.chat_template = CHATML
    return loaded


def chat(*contents: str, first: str = "user") -> Chat:
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    messages = tuple({"role": roles[i % 2], "content": content} for i, content in enumerate(contents))
    last = max(i for i, message in enumerate(messages) if message["role"] == "assistant")
    return Chat("sample 1", messages, range(last, last + 1))


def prepare(tokenizer: Any, *samples: Sample, **settings: Any) -> list[tuple[list[int], list[int]]]:
    rows = tokenised(samples, tokenizer, replace(SETTINGS, **settings)).dataset
    return [(row["input_ids"], row["labels"]) for row in rows]


def learned(tokenizer: Any, labels: Sequence[int]) -> str:
    # Without spaces: some tokenizers put one between tokens.
    return str(tokenizer.decode([label for label in labels if label != NOT_LEARNED])).replace(" ", "")


def refusal(tokenizer: Any, *samples: Sample, **settings: Any) -> str:
    with pytest.raises(ConverterError) as refused:
        prepare(tokenizer, *samples, **settings)
    assert "\n" not in refused.value.message
    return refused.value.message


@pytest.mark.parametrize("loss", ["completion", "all"])
def test_a_text_is_learned_whole_with_its_end(tokenizer: Any, loss: str) -> None:
    ((ids, labels),) = prepare(tokenizer, Text("", "The café's 37 lamps"), loss=loss)
    assert ids == labels == [*tokenizer("The café's 37 lamps").input_ids, tokenizer.eos_token_id]


def test_no_special_token_is_doubled(tokenizer: Any) -> None:
    text = f"{tokenizer.bos_token}Lamp{tokenizer.eos_token}"
    ((ids, _),) = prepare(tokenizer, Text("", text))
    assert (ids.count(tokenizer.bos_token_id), ids.count(tokenizer.eos_token_id)) == (1, 1)


def test_of_prompt_and_completion_the_completion_is_learned(tokenizer: Any) -> None:
    sample = Completion("", "Wind? North?", " No, 江南 🌊.")
    ((ids, labels),) = prepare(tokenizer, sample)
    whole = tokenizer("Wind? North? No, 江南 🌊.", return_offsets_mapping=True)
    assert ids == [*whole.input_ids, tokenizer.eos_token_id]
    # A small vocabulary may have a token over the border, and which one it has isn't the same in every training.
    n_prompt = sum(end <= len("Wind? North?") for _, end in whole.offset_mapping)
    assert labels == [NOT_LEARNED] * n_prompt + ids[n_prompt:]
    ((_, labels),) = prepare(tokenizer, sample, loss="all")
    assert labels == ids


def test_a_token_over_the_border_is_learned(tokenizer: Any) -> None:
    text = "What is the name of the lamp?"
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    joined, start = next((i, start) for i, (start, end) in enumerate(offsets) if i > 2 and end - start > 1)
    ((ids, labels),) = prepare(tokenizer, Completion("", text[: start + 1], text[start + 1 :]))
    assert labels == [NOT_LEARNED] * joined + ids[joined:]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("completion", "Twelve.<|end|>\n"), ("assistant", "North.<|end|>\nTwelve.<|end|>\n"), ("all", None)],
)
def test_of_a_chat_the_turns_are_learned_that_loss_names(tokenizer: Any, loss: str, expected: str | None) -> None:
    sample = chat("Wind?", "North.", "Knots?", "Twelve.", "Thanks.")
    ((ids, labels),) = prepare(tokenizer, sample, loss=loss)
    assert ids == tokenizer.apply_chat_template(list(sample.messages), return_dict=True)["input_ids"]
    whole = tokenizer.decode(ids)
    assert learned(tokenizer, labels) == (expected or whole).replace(" ", "")


def test_a_completion_of_several_turns_is_learned_whole(tokenizer: Any) -> None:
    sample = replace(chat("Wind?", "North.", "Knots?", "Twelve."), completion=range(1, 4))
    ((_, labels),) = prepare(tokenizer, sample)
    text = learned(tokenizer, labels)
    assert text.startswith("North.")
    assert "Knots?" in text
    assert text.endswith("Twelve.<|end|>\n")


def test_a_template_that_writes_the_bos_gets_no_second_one(tokenizer: Any) -> None:
    tokenizer = with_template(tokenizer, GEMMA)
    ((ids, labels),) = prepare(tokenizer, chat("Wind?", "  North.\n"))
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert learned(tokenizer, labels) == "North.<end_of_turn>\n"


def with_template(tokenizer: Any, template: str | None) -> Any:
    other = copy(tokenizer)
    other.chat_template = template
    return other


def test_a_chat_template_that_cannot_be_used_is_refused_with_what_to_do(tokenizer: Any) -> None:
    system = Chat("sample 1", ({"role": "system", "content": "Hm."}, *chat("Wind?", "North.").messages), range(2, 3))
    thoughtful = chat("Wind?", "hm=North.", "Knots?", "hm=Twelve.")
    assert refusal(with_template(tokenizer, GEMMA), system) == (
        "sample 1: the chat template can't render it: System role not supported"
    )
    assert refusal(with_template(tokenizer, None), system) == (
        "sample 1: is a chat, and the base's tokenizer has no chat template; "
        "give one with --chat-template FILE, or data of prompt and completion"
    )
    assert refusal(with_template(tokenizer, "{{ 1 + messages[0].content }}"), system).startswith(
        "sample 1: the chat template can't render it: unsupported operand"
    )
    assert refusal(with_template(tokenizer, FORGETFUL), thoughtful, loss="assistant") == (
        "sample 1: the chat template renders turn 2 otherwise than it prompts for it, or than it does within the "
        "whole; use --loss completion or all"
    )
    ((_, labels),) = prepare(with_template(tokenizer, FORGETFUL), thoughtful)
    assert learned(tokenizer, labels).strip() == "hm=Twelve."


def test_a_prompt_that_is_not_part_of_the_whole_leaves_only_the_whole(tokenizer: Any) -> None:
    closing = with_template(tokenizer, "{% for m in messages %}{{ m.content }} {% endfor %}[{{ messages | length }}]")
    assert refusal(closing, chat("Wind?", "North.")).endswith("use --loss all")
    assert prepare(closing, chat("Wind?", "North."), loss="all")


def test_tools_are_given_to_the_template(tokenizer: Any) -> None:
    template = "{% for tool in tools %}{{ tool.name }} {% endfor %}{% for m in messages %}{{ m.content }} {% endfor %}"
    sample = replace(chat("Wind?", "North."), tools=({"name": "vane"},))
    ((ids, _),) = prepare(with_template(tokenizer, template), sample, loss="all")
    assert ids == tokenizer("vane Wind? North. ", add_special_tokens=False).input_ids


def test_an_answer_to_nothing_is_refused(tokenizer: Any) -> None:
    sample = chat("Ahoy!", "Hm?", "Ahoy!", first="assistant")
    assert refusal(tokenizer, sample, loss="assistant").startswith("sample 1: begins with an assistant's turn")
    assert prepare(tokenizer, sample)


@pytest.mark.parametrize("sample", [Text("sample 1", "a"), Completion("sample 1", "a", "b")])
def test_only_a_chat_has_assistants_turns(tokenizer: Any, sample: Sample) -> None:
    assert refusal(tokenizer, sample, loss="assistant").startswith("sample 1: has no assistant's turns")


def test_a_sample_that_teaches_nothing_is_refused(tokenizer: Any) -> None:
    mute = with_template(tokenizer, "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}")
    assert refusal(mute, chat("Wind?", "North.")) == "sample 1: has no token to learn"


def test_samples_over_max_length_are_refused_dropped_or_cut(tokenizer: Any) -> None:
    short, long = Text("sample 1", "a b"), Text("sample 2", "a b c d e f g h")
    far = Completion("sample 3", "a b c d e f g h", " i")
    lengths = [len(ids) for ids, _ in prepare(tokenizer, short, long, far)]
    limit = lengths[0]
    assert refusal(tokenizer, short, long, far, max_length=limit) == (
        f"2 of 3 samples are longer than max_length {limit}, the first is sample 2; raise --max-length "
        f"(the longest has {max(lengths)} tokens), or say --overlong drop or truncate"
    )

    def counts(overlong: Overlong) -> tuple[int, int, int, list[int]]:
        made = tokenised((short, long, far), tokenizer, replace(SETTINGS, max_length=limit, overlong=overlong))
        return made.n_dropped, made.n_truncated, made.longest, [len(ids) for ids in made.dataset["input_ids"]]

    assert counts("drop") == (2, 0, max(lengths), [lengths[0]])
    # Of the third sample only the prompt would be left.
    assert counts("truncate") == (1, 1, max(lengths), [lengths[0], limit])


@pytest.mark.parametrize("overlong", ["drop", "truncate"])
def test_nothing_left_is_refused(tokenizer: Any, overlong: str) -> None:
    message = refusal(tokenizer, Completion("", "a b c d e f g h", " i"), max_length=3, overlong=overlong)
    assert message == "no sample has anything to learn within max_length 3; raise --max-length"


def test_a_tokenizer_must_name_its_end_and_know_its_characters(tokenizer: Any) -> None:
    endless: Any = with_template(tokenizer, CHATML)
    endless.eos_token = None
    assert refusal(endless, Text("", "a")).startswith("the base's tokenizer names no eos_token")
    assert refusal(SimpleNamespace(is_fast=False), Text("", "a")).startswith("SimpleNamespace doesn't say which")


def as_trl_prepares(tokenizer: Any, rows: list[dict[str, Any]]) -> list[tuple[list[int], list[int]]]:
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    trainer: Any = SimpleNamespace(chat_template=tokenizer.chat_template, _tokenizer=tokenizer)
    trainer.completion_only_loss = "prompt" in rows[0]
    settings = SFTConfig(max_length=200, shuffle_dataset=False, bf16=False, use_cpu=True)
    prepare_dataset: Any = SFTTrainer._prepare_dataset  # noqa: SLF001  the oracle
    made = prepare_dataset(trainer, Dataset.from_list(rows), tokenizer, settings, False, None, "train")
    return [(row["input_ids"], row["labels"]) for row in made]


PAIRS = [
    ("What is the moon?", "A second keeper, pale and without relief."),
    ("def add(a, b):\n", "    return a + b\n"),
    ("Wie spät ist es in 東京?", " 3 Uhr 07 🌙"),
    ("2 + 2 =", " 4"),
]


@pytest.mark.model
@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated:FutureWarning")  # transformers, of trl
@pytest.mark.parametrize("model", [SMOLLM2, GEMMA3], ids=str)
def test_real_tokenizers_give_what_trl_gives(model: RealModel) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(model.hf)
    tokenizer.chat_template = tokenizer.chat_template or GEMMA
    chats = [
        ({"role": "user", "content": prompt}, {"role": "assistant", "content": answer}) for prompt, answer in PAIRS
    ]
    cases: list[tuple[list[Sample], list[dict[str, Any]]]] = [
        (
            [Text("", prompt + answer) for prompt, answer in PAIRS],
            [{"text": prompt + answer} for prompt, answer in PAIRS],
        ),
        (
            [Completion("", prompt, answer) for prompt, answer in PAIRS],
            [{"prompt": prompt, "completion": answer} for prompt, answer in PAIRS],
        ),
        (
            [Chat("", pair, range(1, 2)) for pair in chats],
            [{"prompt": [user], "completion": [assistant]} for user, assistant in chats],
        ),
    ]
    for samples, rows in cases:
        ours = prepare(tokenizer, *samples)
        assert ours == as_trl_prepares(tokenizer, rows)
        assert [(ids, one_later(labels)) for ids, labels in ours] != as_trl_prepares(tokenizer, rows)


def one_later(labels: list[int]) -> list[int]:
    """The same labels with the border one token on: what the comparison must see."""
    first = next(i for i, label in enumerate(labels) if label != NOT_LEARNED)
    return [*labels[:first], NOT_LEARNED, *labels[first + 1 :]]
