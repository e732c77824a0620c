"""The tokenizer that a Hugging Face base brings gives the same tokens in llama.cpp as in transformers."""

import json
import shutil
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import pytest
from gguf import GGUFReader
from transformers import AutoTokenizer

from converter.derive.base_model import read_base_model
from converter.errors import ConverterError
from converter.verification.llama_cpp import LlamaCpp
from fixtures.fuzzed_texts import fuzzed_texts
from fixtures.mixed_texts import mixed_texts
from fixtures.real import GEMMA3, SMOLLM2, RealModel
from fixtures.tokenizer_gguf import PRE, tokenizer_gguf
from fixtures.trained_tokenizers import DIFFERING, KINDS, write_byte_level, write_sentencepiece

pytestmark = pytest.mark.llama

N_TOKENS = 1000


@pytest.mark.parametrize("kind", KINDS)
def test_byte_level(kind: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    directory = write_byte_level(kind, tmp_path / kind, N_TOKENS)
    gguf = tokenizer_gguf(directory, N_TOKENS, tmp_path / "model.gguf")
    assert _metadata(gguf)[PRE] == kind
    assert not _differing(directory, gguf, llama_cpp)


@pytest.mark.parametrize("kind", KINDS)
def test_it_cuts_any_text_alike(kind: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """With a vocabulary that any cut shows in; benchmarks/pre_tokenizers.py tries a hundred times as many."""
    directory = write_byte_level(kind, tmp_path / kind, 2 * N_TOKENS, across=True)
    pre = "llama-bpe" if kind == "llama-bpe" else None
    gguf = tokenizer_gguf(directory, 2 * N_TOKENS, tmp_path / "model.gguf", pre=pre)
    assert not _differing(directory, gguf, llama_cpp, tuple(fuzzed_texts(1000)))


@pytest.mark.parametrize("kind", DIFFERING)
def test_what_llama_cpp_cuts_otherwise_is_refused(kind: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """By a text that tells it, which is so in llama.cpp: with the same tokens, in a tokenizer of another name."""
    n = 3 * N_TOKENS
    directory = write_byte_level(kind, tmp_path / kind, n, across=True)
    with pytest.raises(ConverterError, match="'дД' otherwise"):
        tokenizer_gguf(directory, n, tmp_path / "model.gguf")
    named = write_byte_level("gpt-2", tmp_path / "named", n, across=True)
    gguf = tokenizer_gguf(named, n, tmp_path / "model.gguf", pre=kind)
    assert _differing(directory, gguf, llama_cpp, ("дД", "abc")) == ["дД"]


# Llama 3 cuts as GPT-4 does: it parts from it only where a token of the vocabulary isn't made by merges.
PAIRS = [pair for pair in combinations(KINDS, 2) if pair != ("llama-bpe", "dbrx")]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_the_texts_tell_pre_tokenizers_apart(one: str, other: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """The control: under the other's name one of the two gives other tokens."""
    differing = []
    for kind, pre in ((one, other), (other, one)):
        directory = write_byte_level(kind, tmp_path / kind, N_TOKENS)
        gguf = tokenizer_gguf(directory, N_TOKENS, tmp_path / "model.gguf", pre=pre)
        differing += _differing(directory, gguf, llama_cpp)
    assert differing


def test_sentencepiece(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    directory = write_sentencepiece(tmp_path / "spm", N_TOKENS)
    gguf = tokenizer_gguf(directory, N_TOKENS, tmp_path / "model.gguf")
    assert _metadata(gguf)["tokenizer.ggml.model"] == "llama"
    assert not _differing(directory, gguf, llama_cpp)


def test_rows_beyond_the_tokens_are_padding(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    directory = write_byte_level("qwen2", tmp_path / "qwen2", N_TOKENS)
    gguf = tokenizer_gguf(directory, N_TOKENS + 24, tmp_path / "model.gguf")
    assert llama_cpp.n_vocab(gguf) == N_TOKENS + 24
    assert not _differing(directory, gguf, llama_cpp)


@pytest.mark.model
@pytest.mark.parametrize("model", [SMOLLM2, GEMMA3], ids=str)
def test_a_real_tokenizer(model: RealModel, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    n_rows = read_base_model(model.hf).dims["vocab"]
    gguf = tokenizer_gguf(model.hf, n_rows, tmp_path / "model.gguf")
    assert not _differing(model.hf, gguf, llama_cpp)
    ours, theirs = _metadata(gguf), _metadata(model.packaged_gguf)
    for key in ("model", "tokens", "bos_token_id", "eos_token_id", "padding_token_id", "add_bos_token"):
        assert _with_spaces(ours[f"tokenizer.ggml.{key}"]) == _with_spaces(theirs[f"tokenizer.ggml.{key}"]), key
    assert ours.get("tokenizer.chat_template") == theirs.get("tokenizer.chat_template")


@pytest.mark.model
def test_smollm2_as_it_is_published(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """The fixture's tokenizer.json, made of the GGUF, has lost what cuts off digits."""
    directory = tmp_path / "smollm2"
    directory.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SMOLLM2.hf / name, directory)
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_bytes())
    digits = {"type": "Digits", "individual_digits": True}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, tokenizer["pre_tokenizer"]]}
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    gguf = tokenizer_gguf(directory, 49152, tmp_path / "model.gguf")
    ours, theirs = _metadata(gguf), _metadata(SMOLLM2.packaged_gguf)
    assert ours[PRE] == theirs[PRE] == "smollm"
    assert ours["tokenizer.ggml.merges"] == theirs["tokenizer.ggml.merges"]
    assert not _differing(directory, gguf, llama_cpp)


def _differing(directory: Path, gguf: Path, llama_cpp: LlamaCpp, texts: Sequence[str] = mixed_texts()) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return [text for text in texts if tokenizer(text).input_ids != llama_cpp.tokenize(gguf, text)]


def _metadata(gguf: Path) -> dict[str, object]:
    return {key: field.contents() for key, field in GGUFReader(gguf).fields.items()}


def _with_spaces(value: object) -> object:
    """Tokens of spaces alone are added ones in Gemma's own tokenizer, and none in the fixture's, made of the GGUF."""
    return [token.replace("▁", " ") for token in value] if isinstance(value, list) else value
