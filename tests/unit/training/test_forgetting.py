import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from converter.errors import ConverterError
from converter.training.forgetting import general_texts, perplexity
from fixtures.trained_tokenizers import write_byte_level

TEXTS = ("The tide turns twice a day, 37 minutes later each time.", "Lamp.", "", "江南 🌊 is far from here.")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return AutoTokenizer.from_pretrained(write_byte_level("llama-bpe", tmp_path_factory.mktemp("tokenizer")))


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=320, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    made = LlamaForCausalLM(config)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def by_loss(model: Any, tokenizer: Any, max_length: int) -> tuple[float, int]:
    """The same by transformers' own loss, a mean over a window's tokens."""
    total, n_tokens = 0.0, 0
    for text in TEXTS:
        for ids in torch.split(torch.tensor(tokenizer(text).input_ids, dtype=torch.long), max_length):
            if len(ids) > 1:
                with torch.no_grad():
                    total += model(input_ids=ids[None], labels=ids[None]).loss.item() * (len(ids) - 1)
                n_tokens += len(ids) - 1
    return math.exp(total / n_tokens), n_tokens


@pytest.mark.parametrize("max_length", [7, 200])
def test_perplexity_is_what_transformers_loss_says(model: Any, tokenizer: Any, max_length: int) -> None:
    value, n_tokens = by_loss(model, tokenizer, max_length)
    measured = perplexity(model, tokenizer, TEXTS, max_length)
    assert measured.n_tokens == n_tokens
    assert measured.value == pytest.approx(value, rel=1e-5)
    assert measured.value > 320  # worse than by guessing: there is something to measure


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(model: Any, tokenizer: Any, training: bool) -> None:
    model.train(training)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    perplexity(model, tokenizer, TEXTS, 50)
    assert model.training is training
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())


def test_dropout_is_off_while_it_measures(tokenizer: Any) -> None:
    class Dropping(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.modes: list[bool] = []

        def forward(self, input_ids: torch.Tensor) -> Any:
            self.modes.append(self.training)
            return type("Output", (), {"logits": torch.zeros(*input_ids.shape, 320)})

    dropping = Dropping().train()
    assert perplexity(dropping, tokenizer, TEXTS, 50).value == pytest.approx(320)
    assert set(dropping.modes) == {False}


def test_a_model_that_fell_apart_is_infinitely_perplexed(model: Any, tokenizer: Any) -> None:
    head = model.lm_head.weight.detach().clone()
    model.lm_head.weight.data *= 1e4
    assert perplexity(model, tokenizer, TEXTS, 50).value == math.inf
    model.lm_head.weight.data.fill_(math.nan)
    assert perplexity(model, tokenizer, TEXTS, 50).value == math.inf
    model.lm_head.weight.data.copy_(head)


def test_a_text_of_one_token_says_nothing(model: Any, tokenizer: Any) -> None:
    with pytest.raises(ConverterError, match="the general text has no two tokens in a row"):
        perplexity(model, tokenizer, ("", ""), 50)


def test_paragraphs_are_parted_by_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "general.txt"
    path.write_text("One\nstill one.\n\n\n  Two.\n \nThree.\n", encoding="utf-8")
    assert general_texts(path) == ("One\nstill one.", "Two.", "Three.")


@pytest.mark.parametrize(("content", "expected"), [(b"\n\n", "holds no text"), (b"\xff", "not UTF-8")])
def test_a_file_without_text_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "general.txt"
    path.write_bytes(content)
    with pytest.raises(ConverterError, match=expected):
        general_texts(path)


def test_the_bundled_text_is_a_good_page_of_everything() -> None:
    texts = general_texts(None)
    assert 14 <= len(texts) <= 18
    assert len(set(texts)) == len(texts)
    assert 1500 <= sum(len(text.split()) for text in texts) <= 2200
    assert "lamp is lit" not in " ".join(texts)
