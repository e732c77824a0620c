"""The tokenizer that a Hugging Face base brings gives the same tokens in llama.cpp as in transformers."""

import json
import shutil
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from gguf import GGUFReader
from transformers import AutoTokenizer

from converter.derive.base_model import read_base_model
from converter.dtypes import F16
from converter.planning.base_tensors import base_tensors
from converter.planning.conversion_plan import NewKeyValue, PlannedFile, PlannedKeyValue, PlannedTensor
from converter.planning.metadata import base_key_values
from converter.sources import Zeros
from converter.verification.llama_cpp import LlamaCpp
from converter.writing.gguf_file import write_gguf
from fixtures.mixed_texts import mixed_texts
from fixtures.real import GEMMA3, SMOLLM2, RealModel
from fixtures.tiny import TinyModel
from fixtures.trained_tokenizers import KINDS, write_byte_level, write_sentencepiece

pytestmark = pytest.mark.llama

N_TOKENS = 1000
PRE = "tokenizer.ggml.pre"


@pytest.mark.parametrize("kind", KINDS)
def test_byte_level(kind: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    directory = write_byte_level(kind, tmp_path / kind, N_TOKENS)
    gguf = _gguf(directory, N_TOKENS, tmp_path / "model.gguf")
    assert _metadata(gguf)[PRE] == kind
    assert not _differing(directory, gguf, llama_cpp)


# Llama 3 cuts as GPT-4 does: it parts from it only where a token of the vocabulary isn't made by merges.
PAIRS = [pair for pair in combinations(KINDS, 2) if pair != ("llama-bpe", "dbrx")]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_the_texts_tell_pre_tokenizers_apart(one: str, other: str, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    """The control: under the other's name one of the two gives other tokens."""
    differing = []
    for kind, pre in ((one, other), (other, one)):
        directory = write_byte_level(kind, tmp_path / kind, N_TOKENS)
        gguf = _gguf(directory, N_TOKENS, tmp_path / "model.gguf", pre=pre)
        differing += _differing(directory, gguf, llama_cpp)
    assert differing


def test_sentencepiece(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    directory = write_sentencepiece(tmp_path / "spm", N_TOKENS)
    gguf = _gguf(directory, N_TOKENS, tmp_path / "model.gguf")
    assert _metadata(gguf)["tokenizer.ggml.model"] == "llama"
    assert not _differing(directory, gguf, llama_cpp)


def test_rows_beyond_the_tokens_are_padding(llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    directory = write_byte_level("qwen2", tmp_path / "qwen2", N_TOKENS)
    gguf = _gguf(directory, N_TOKENS + 24, tmp_path / "model.gguf")
    assert llama_cpp.n_vocab(gguf) == N_TOKENS + 24
    assert not _differing(directory, gguf, llama_cpp)


@pytest.mark.model
@pytest.mark.parametrize("model", [SMOLLM2, GEMMA3], ids=str)
def test_a_real_tokenizer(model: RealModel, llama_cpp: LlamaCpp, tmp_path: Path) -> None:
    n_rows = read_base_model(model.hf).dims["vocab"]
    gguf = _gguf(model.hf, n_rows, tmp_path / "model.gguf")
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
    gguf = _gguf(directory, 49152, tmp_path / "model.gguf")
    ours, theirs = _metadata(gguf), _metadata(SMOLLM2.packaged_gguf)
    assert ours[PRE] == theirs[PRE] == "smollm"
    assert ours["tokenizer.ggml.merges"] == theirs["tokenizer.ggml.merges"]
    assert not _differing(directory, gguf, llama_cpp)


def _gguf(directory: Path, n_rows: int, path: Path, pre: str | None = None) -> Path:
    """A tiny llama with the tokenizer in ``directory``."""
    tiny = read_base_model(TinyModel("llama").hf)
    tensors = tuple(_resized(tensor.planned(tensor.name), n_rows) for tensor in base_tensors(tiny))
    base = replace(tiny, path=directory, dims={**tiny.dims, "vocab": n_rows})
    key_values = tuple(_renamed(entry, pre) for entry in base_key_values(base, tensors))
    with path.open("wb") as file:
        write_gguf(PlannedFile("model", tensors, key_values), file, lambda _: None)
    return path


def _resized(tensor: PlannedTensor, n_rows: int) -> PlannedTensor:
    shape = (n_rows, tensor.shape[-1])
    is_embedding = tensor.name == "token_embd.weight"
    return PlannedTensor(tensor.name, shape, F16, Zeros(shape)) if is_embedding else tensor


def _renamed(entry: PlannedKeyValue, pre: str | None) -> PlannedKeyValue:
    return NewKeyValue(PRE, pre) if pre and entry.key == PRE else entry


def _differing(directory: Path, gguf: Path, llama_cpp: LlamaCpp) -> list[str]:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return [text for text in mixed_texts() if tokenizer(text).input_ids != llama_cpp.tokenize(gguf, text)]


def _metadata(gguf: Path) -> dict[str, object]:
    return {key: field.contents() for key, field in GGUFReader(gguf).fields.items()}


def _with_spaces(value: object) -> object:
    """Tokens of spaces alone are added ones in Gemma's own tokenizer, and none in the fixture's, made of the GGUF."""
    return [token.replace("▁", " ") for token in value] if isinstance(value, list) else value
