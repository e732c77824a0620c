"""The vocabulary of a merged model, read back by gguf's reader: rows, tokens, scores, types, ids and template."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.conversion import Refused
from fixtures.tokenizers import CONTROL, NORMAL, UNUSED, USER_DEFINED, with_metadata
from fixtures.tokenizers import metadata as tokenizer
from tests.rules.bad.tokens import TOKENS, TOOL, save_ends, with_tokens, write_tokenizer
from tests.rules.specimens import EMBEDDING, HEAD, HIDDEN, VOCAB, Specimen, tensor, write_gguf
from tests.unit.conversion import LORA, MODEL, convert, entries_of, metadata_of, tensors_of, values_of

SCORES = [float(-i) for i in range(VOCAB)]
TYPES = [CONTROL] * 3 + [NORMAL] * (VOCAB - 3)
TOKENIZER = "tokenizer.ggml"


@pytest.fixture
def specimen(tmp_path: Path) -> Specimen:
    write_gguf(tmp_path / "tied.gguf")
    it = Specimen(tmp_path / "adapter", None)
    with_tokens(it, tmp_path, scores=SCORES)
    return it


def metadata(specimen: Specimen, tmp_path: Path) -> dict[str, Any]:
    convert(specimen, tmp_path / "model.gguf", MODEL)
    return metadata_of(tmp_path / "model.gguf")


def test_new_tokens_stand_behind_the_bases(specimen: Specimen, tmp_path: Path) -> None:
    write_tokenizer(specimen.directory, {VOCAB: TOOL, VOCAB + 2: "▁word"})
    save_ends(specimen, VOCAB + 4)
    found = metadata(specimen, tmp_path)
    new = [TOOL, f"[PAD{VOCAB + 1}]", "▁word", f"[PAD{VOCAB + 3}]"]
    assert found[f"{TOKENIZER}.tokens"] == [*TOKENS, *new]
    assert found[f"{TOKENIZER}.token_type"] == [*TYPES, CONTROL, UNUSED, CONTROL, UNUSED]
    assert found[f"{TOKENIZER}.scores"] == [*SCORES, *[-1000.0] * 4]
    assert values_of(tmp_path / "model.gguf", "token_embd.weight").shape == (VOCAB + 4, HIDDEN)


def test_a_token_that_is_not_special_is_user_defined(specimen: Specimen, tmp_path: Path) -> None:
    write_tokenizer(specimen.directory, {VOCAB: "▁word"}, special=False)
    save_ends(specimen, VOCAB + 1)
    found = metadata(specimen, tmp_path)
    assert found[f"{TOKENIZER}.tokens"][-1] == " word"
    assert found[f"{TOKENIZER}.token_type"][-1] == USER_DEFINED


def test_a_renamed_token_changes_one_entry(specimen: Specimen, tmp_path: Path) -> None:
    write_tokenizer(specimen.directory, {2: TOOL})
    found = metadata(specimen, tmp_path)
    assert found[f"{TOKENIZER}.tokens"] == [*TOKENS[:2], TOOL, *TOKENS[3:]]
    assert found[f"{TOKENIZER}.token_type"] == TYPES
    assert found[f"{TOKENIZER}.scores"] == [0.0, -1.0, -1000.0, *SCORES[3:]]


def test_ids_and_template_follow_the_tokenizer(specimen: Specimen, tmp_path: Path) -> None:
    stated: dict[str, Any] = {"eos_token": TOOL, "pad_token": {"content": "</s>"}, "chat_template": "{{ messages }}"}
    write_tokenizer(specimen.directory, {2: TOOL}, **stated)
    found = metadata(specimen, tmp_path)
    assert found[f"{TOKENIZER}.bos_token_id"] == 0
    assert found[f"{TOKENIZER}.eos_token_id"] == 2
    assert found[f"{TOKENIZER}.padding_token_id"] == 1
    assert found["tokenizer.chat_template"] == "{{ messages }}"


def test_a_tokenizer_that_says_the_same_changes_no_byte(specimen: Specimen, tmp_path: Path) -> None:
    convert(specimen, tmp_path / "model.gguf", MODEL)
    assert specimen.base
    before, after = entries_of(specimen.base), entries_of(tmp_path / "model.gguf")
    assert {key: after[key] for key in before} == before


def test_rows_of_the_new_tokens_are_the_adapters(specimen: Specimen, tmp_path: Path) -> None:
    """Rows that replace the base's, and rows that the base doesn't have, from one tensor."""
    write_tokenizer(specimen.directory, {VOCAB: TOOL, VOCAB + 1: "<another>"})
    specimen.config["trainable_token_indices"] = [VOCAB + 1, 5, VOCAB]
    rows = tensor(3, HIDDEN, seed=7)
    specimen.tensors[f"{EMBEDDING}.token_adapter.trainable_tokens_delta"] = rows
    convert(specimen, tmp_path / "model.gguf", MODEL)
    assert specimen.base
    expected = np.vstack([values_of(specimen.base, "token_embd.weight"), np.zeros((2, HIDDEN))])
    expected[[VOCAB + 1, 5, VOCAB]] = np.frombuffer(rows[2], "<f4").reshape(3, HIDDEN)
    assert np.array_equal(values_of(tmp_path / "model.gguf", "token_embd.weight"), expected)


def test_an_end_without_a_change_loses_rows_and_no_bit(specimen: Specimen, tmp_path: Path) -> None:
    """The trained model had fewer rows than the base, whose last ones stand for no token."""
    quantized = write_gguf(tmp_path / "quantized.gguf", tied=False, outtype="Q4_0")
    n, types = VOCAB - 8, [NORMAL] * (VOCAB - 8) + [UNUSED] * 8
    specimen.base = with_metadata(quantized, tmp_path / "base.gguf", tokenizer("llama", list(TOKENS), types))
    specimen.config["modules_to_save"] = ["lm_head"]
    specimen.tensors[f"{HEAD}.weight"] = tensor(n, HIDDEN)
    (specimen.directory / "tokenizer.json").unlink()
    found = metadata(specimen, tmp_path)
    assert found[f"{TOKENIZER}.tokens"] == list(TOKENS[:n])
    before, after = (tensors_of(path)["token_embd.weight"] for path in (specimen.base, tmp_path / "model.gguf"))
    assert np.array_equal(after.data, before.data[:n])


def test_a_lora_file_has_no_place_for_them(specimen: Specimen, tmp_path: Path) -> None:
    write_tokenizer(specimen.directory, {2: TOOL})
    with pytest.raises(Refused, match="BM020"):
        convert(specimen, tmp_path / "lora.gguf", LORA)
    assert not (tmp_path / "lora.gguf").exists()
