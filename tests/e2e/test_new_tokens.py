"""Tokens of the user's own: what transformers and PEFT make of them, llama.cpp makes of the converted model.

The base has a tokenizer of 320 tokens; the adapter is trained on a model whose vocabulary was resized for more, and
saved beside its tokenizer. Same text, same ids; same ids, same logits.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from converter.conversion import Refused, plan, write
from converter.derive.adapter import read_adapter
from converter.derive.base_model import read_base_model
from converter.derive.vocabulary import base_tokens
from converter.diagnostics import Deployment
from converter.verification.llama_cpp import LlamaCpp
from fixtures.adapters import load_base
from fixtures.measure import kl
from fixtures.tiny import N_VOCAB, TinyModel
from fixtures.tokenizers import CONTROL, UNUSED, byte_level, sentencepiece, with_metadata

pytestmark = pytest.mark.llama

LARGEST_RATIO = 1e-4
TOKENIZERS = {"llama": sentencepiece, "gemma3": sentencepiece, "qwen2": byte_level, "gemma2": byte_level}
ADDED, TOOL = "<my_tool>", "<|call|>"
WORDS = "the fox <my_tool> jumps<|call|>over the dog, über <my_tool>."
TEMPLATE = "{% for message in messages %}<|call|>{{ message.content }}{% endfor %}"
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
MODEL, UNTIED = Deployment("model"), Deployment("model", untie=True)


@dataclass
class Story:
    """A base with a tokenizer, a model resized for more tokens, and the adapter that was saved."""

    directory: Path
    name: str = "llama"
    tied: bool = True
    pad_to_multiple_of: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    save_embedding_layers: bool | str = "auto"

    def __post_init__(self) -> None:
        tiny = TinyModel(self.name, tied=self.tied)
        fast, entries = TOKENIZERS[self.name](N_VOCAB)
        ids = {"tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2, "tokenizer.ggml.padding_token_id": 0}
        never = {"tokenizer.ggml.add_bos_token": False}
        self.base = with_metadata(tiny.gguf, self.directory / "base.gguf", {**entries, **ids, **never})
        self.tokenizer = fast_tokenizer(fast, **SPECIAL)
        self.model: PreTrainedModel = load_base(tiny.hf)

    def shorten(self, n_tokens: int) -> None:
        """Give the base's last rows no token, and the tokenizer only the others."""
        fast, entries = TOKENIZERS[self.name](n_tokens)
        padding = range(n_tokens, N_VOCAB)
        self.base = with_metadata(self.base, self.directory / "short.gguf", padded(entries, padding))
        self.tokenizer = fast_tokenizer(fast)

    @property
    def adapter(self) -> Path:
        return self.directory / "adapter"

    def add_tokens(self) -> None:
        """Add one ordinary and one special token, and make the special one the end of a turn."""
        self.tokenizer.add_tokens([ADDED])
        self.tokenizer.add_special_tokens({"eos_token": TOOL})
        self.tokenizer.chat_template = TEMPLATE

    def resize(self) -> None:
        torch.manual_seed(3)
        self.model.resize_token_embeddings(len(self.tokenizer), self.pad_to_multiple_of, mean_resizing=False)

    def train(self) -> None:
        """Fill what is trainable with random numbers, and save adapter and tokenizer into one directory."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            options = {"target_modules": "all-linear", "r": 4, **self.config}
            self.peft: PeftModel = get_peft_model(self.model, LoraConfig(task_type="CAUSAL_LM", **options))
            generator = torch.Generator().manual_seed(5)
            with torch.no_grad():
                for name, parameter in self.peft.named_parameters():
                    if parameter.requires_grad:
                        noise = torch.randn(parameter.shape, generator=generator)
                        parameter.copy_(0.06 * noise if "lora" in name else parameter + 0.3 * noise)
            self.peft.save_pretrained(str(self.adapter), save_embedding_layers=self.save_embedding_layers)
        self.tokenizer.save_pretrained(str(self.adapter))

    def convert(self, deployment: Deployment = MODEL) -> Path:
        adapter, base = read_adapter(self.adapter), read_base_model(self.base)
        return write(plan(adapter, base, deployment), self.directory / "model.gguf")[0].path

    def check(self, llama_cpp: LlamaCpp, deployment: Deployment = MODEL) -> Path:
        """Convert, and compare ids and logits."""
        model = self.convert(deployment)
        ids = self.tokenizer(WORDS, add_special_tokens=False)["input_ids"]
        assert tokenized(llama_cpp, model, WORDS) == ids
        (served,) = llama_cpp.logits(model, [tuple(ids)])
        with torch.no_grad(), self.peft.disable_adapter():
            before = self.peft(torch.tensor([ids])).logits[0].numpy()
        with torch.no_grad():
            trained = self.peft(torch.tensor([ids])).logits[0].numpy()
        n = served.shape[1]
        assert kl(trained[:, :n], served) <= LARGEST_RATIO * kl(trained, before)
        return model


def fast_tokenizer(tokenizer: Tokenizer, **special: str) -> Any:
    tokenizer_class: Any = PreTrainedTokenizerFast
    return tokenizer_class(tokenizer_object=tokenizer, **special)


def tokenized(llama_cpp: LlamaCpp, model: Path, text: str) -> list[int]:
    """The ids of a prompt. llama.cpp reads control tokens in it by their texts, before all others."""
    tokens = base_tokens(read_base_model(model))
    control = [text for text, kind in zip(tokens.texts, tokens.types, strict=True) if kind == CONTROL]
    parts = re.split(f"({'|'.join(map(re.escape, control))})", text)
    ids = ([tokens.texts.index(part)] if part in control else llama_cpp.tokenize(model, part) for part in parts)
    return [i for part in ids for i in part]


def padded(entries: Mapping[str, Any], ids: range) -> dict[str, Any]:
    """The entries with padding behind the tokens, as llama.cpp's converter writes it."""
    tokens, types = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
    more = {tokens: [f"[PAD{i}]" for i in ids], types: [UNUSED for _ in ids]}
    return {**entries, **{key: entries[key] + values for key, values in more.items()}}


BOTH = {"modules_to_save": ["embed_tokens", "lm_head"]}
ROWS = {"trainable_token_indices": [N_VOCAB, N_VOCAB + 1]}


@pytest.mark.parametrize(
    ("name", "tied", "config", "deployment"),
    [
        ("llama", True, {}, MODEL),
        ("gemma3", True, {}, MODEL),
        ("qwen2", True, {}, MODEL),
        ("gemma2", True, {}, MODEL),
        ("llama", True, BOTH, UNTIED),
        ("llama", False, BOTH, MODEL),
        ("qwen2", True, {**BOTH, "ensure_weight_tying": True}, MODEL),
        ("llama", True, {"modules_to_save": ["embed_tokens"]}, UNTIED),
        ("gemma3", True, ROWS, MODEL),
        ("llama", True, ROWS, UNTIED),
        ("llama", False, ROWS, MODEL),
        ("llama", False, {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}, MODEL),
        ("llama", True, {"target_modules": ["q_proj", "embed_tokens"]}, UNTIED),
        ("qwen2", False, {"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["embed_tokens"]}, MODEL),
    ],
)
def test_new_tokens_are_the_models(
    *, name: str, tied: bool, config: dict[str, Any], deployment: Deployment, llama_cpp: LlamaCpp, tmp_path: Path
) -> None:
    story = Story(tmp_path, name, tied, config=config)
    story.add_tokens()
    story.resize()
    story.train()
    kv = read_base_model(story.check(llama_cpp, deployment)).shards[0].kv
    assert kv["tokenizer.ggml.eos_token_id"] == N_VOCAB + 1
    assert kv["tokenizer.ggml.bos_token_id"] == 1
    assert kv["tokenizer.chat_template"] == TEMPLATE
    assert kv[f"{name}.vocab_size"] == N_VOCAB + 2


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_rows_behind_the_tokens_are_padding(name: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    story = Story(tmp_path, name, pad_to_multiple_of=64)
    story.add_tokens()
    story.resize()
    story.train()
    model = story.check(llama_cpp)
    assert llama_cpp.n_vocab(model) == 384
    assert llama_cpp.tokenize(model, "[PAD330]") != [330]


def test_padding_alone_stays_behind(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """Of 336 rows of 320 tokens llama.cpp's converter would write 320 (Gemma 3)."""
    story = Story(tmp_path, pad_to_multiple_of=48)
    story.resize()
    story.train()
    adapter, base = read_adapter(story.adapter), read_base_model(story.base)
    assert any("padding" in note for note in plan(adapter, base, MODEL).notes)
    model = story.convert()
    assert llama_cpp.n_vocab(model) == N_VOCAB
    ids = story.tokenizer(WORDS, add_special_tokens=False)["input_ids"]
    (served,) = llama_cpp.logits(model, [tuple(ids)])
    with torch.no_grad():
        trained = story.peft(torch.tensor([ids])).logits[0, :, :N_VOCAB].numpy()
    assert np.abs(served - trained).max() < 1e-3


@pytest.mark.parametrize("name", ["gemma3", "qwen2"])
def test_a_reserved_token_takes_a_new_name(name: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """No row is added: `<unused0>` becomes a token of the user's own, in the tokenizer's file."""
    story = Story(tmp_path, name)
    text = story.tokenizer.backend_tokenizer.to_str().replace("<unused0>", ADDED).replace("<unused1>", TOOL)
    story.tokenizer = fast_tokenizer(Tokenizer.from_str(text))
    story.config = {"trainable_token_indices": [3, 4]}
    story.train()
    model = story.check(llama_cpp)
    assert tokenized(llama_cpp, model, f"{ADDED}{TOOL}") == [3, 4]
    for deployment in (Deployment("lora"), Deployment("lora", untie=True)):
        with pytest.raises(Refused, match="BM020"):
            story.convert(deployment)


def test_a_vocabulary_that_shrank(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """`resize_token_embeddings(len(tokenizer))` cuts off what Qwen's embedding has beyond its tokens."""
    story = Story(tmp_path, "qwen2")
    story.shorten(N_VOCAB - 12)
    story.tokenizer.add_tokens([ADDED])
    story.resize()
    story.train()
    assert llama_cpp.n_vocab(story.check(llama_cpp)) == N_VOCAB - 11


def test_rows_that_nobody_saved(tmp_path: Path) -> None:
    story = Story(tmp_path, config={"target_modules": ["q_proj", "lm_head"]}, tied=False, save_embedding_layers=False)
    story.add_tokens()
    story.resize()
    story.train()
    with pytest.raises(Refused, match="BM022"):
        story.convert()
