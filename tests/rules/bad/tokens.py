"""Adapters with tokens of their own that the base, or a LoRA file, has no place for."""

import json
from collections.abc import Mapping
from pathlib import Path

from fixtures.tokenizers import CONTROL, NORMAL, metadata, with_metadata
from tests.rules.bad.registry import bad
from tests.rules.specimens import EMBEDDING, HEAD, HIDDEN, RANK, VOCAB, Specimen, embedding_lora, tensor, transposed

TOKENS = ("<s>", "</s>", "<unused0>", *(f"word{i}" for i in range(3, VOCAB)))
TOOL = "<my_tool>"


def with_tokens(it: Specimen, bases: Path, base: str = "tied.gguf", **entries: object) -> None:
    """Give the base tokens, and the adapter the same tokenizer."""
    types = [CONTROL] * 3 + [NORMAL] * (VOCAB - 3)
    entries = {"bos_token_id": 0, "eos_token_id": 1, **entries}
    it.base = with_metadata(
        bases / base, it.directory.with_name("base.gguf"), metadata("llama", list(TOKENS), types, **entries)
    )
    write_tokenizer(it.directory)


def write_tokenizer(
    directory: Path,
    added: Mapping[int, str] | None = None,
    texts: Mapping[int, str] | None = None,
    *,
    special: bool = True,
    **config: object,
) -> None:
    """Write a tokenizer as transformers saves it, with other added tokens and other texts of the vocabulary."""
    directory.mkdir(parents=True, exist_ok=True)
    own = {**dict(enumerate(TOKENS)), **(texts or {})}
    entries = [{"id": i, "content": TOKENS[i], "special": True} for i in range(3) if i not in (added or {})]
    entries += [{"id": i, "content": text, "special": special} for i, text in (added or {}).items()]
    whole = {
        "version": "1.0",
        "added_tokens": entries,
        "model": {"type": "BPE", "vocab": {text: i for i, text in own.items()}, "merges": []},
    }
    (directory / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    stated = {"bos_token": "<s>", "eos_token": "</s>", **config}
    (directory / "tokenizer_config.json").write_text(json.dumps(stated), encoding="utf-8")


def save_ends(it: Specimen, n_rows: int) -> None:
    """Save both ends whole, as PEFT does where the vocabulary was resized."""
    it.tensors |= {f"{EMBEDDING}.weight": tensor(n_rows, HIDDEN), f"{HEAD}.weight": tensor(n_rows, HIDDEN)}


@bad("ST020")
def a_tokenizer_left_on_the_hub(it: Specimen, _: Path) -> None:
    it.write()
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    (it.directory / "tokenizer.json").write_text(pointer, encoding="ascii")


@bad("BM020", "HD010")
def a_new_token(it: Specimen, bases: Path) -> None:
    with_tokens(it, bases)
    write_tokenizer(it.directory, {VOCAB: TOOL})
    save_ends(it, VOCAB + 1)
    it.write()


@bad("BM020")
def a_reserved_token_renamed(it: Specimen, bases: Path) -> None:
    with_tokens(it, bases)
    write_tokenizer(it.directory, {2: TOOL})
    it.write()


@bad("BM029")
def a_padding_token_in_reserve(it: Specimen, bases: Path) -> None:
    with_tokens(it, bases)
    write_tokenizer(it.directory, {2: TOOL}, pad_token=TOOL)
    it.write()


@bad("BM020")
def a_padding_token_that_ends_answers_too(it: Specimen, bases: Path) -> None:
    with_tokens(it, bases, eos_token_id=2)
    write_tokenizer(it.directory, {2: TOOL}, pad_token=TOOL, eos_token=TOOL)
    it.write()


@bad("BM020", "BM025")
def a_padding_token_in_the_chat_template(it: Specimen, bases: Path) -> None:
    with_tokens(it, bases)
    write_tokenizer(it.directory, {2: TOOL}, pad_token=TOOL, chat_template=f"{{{{ messages }}}}{TOOL}")
    it.write()


@bad("BM021", "HD010")
def rows_without_a_tokenizer(it: Specimen, _: Path) -> None:
    save_ends(it, VOCAB + 1)
    it.write()


@bad("BM027", "BM020")
def a_token_with_two_ids(it: Specimen, bases: Path) -> None:
    with_tokens(it, bases)
    write_tokenizer(it.directory, {2: "word7"})
    it.write()


@bad("BM022", "BM020", "HD003")
def a_delta_for_rows_that_are_not_there(it: Specimen, bases: Path) -> None:
    with_tokens(it, bases)
    write_tokenizer(it.directory, {VOCAB: TOOL})
    it.tensors |= embedding_lora() | {f"{EMBEDDING}.lora_embedding_A": transposed(tensor(VOCAB + 1, RANK))}
    it.write()


@bad("BM022", "BM020", "HD012")
def rows_of_some_new_tokens(it: Specimen, bases: Path) -> None:
    with_tokens(it, bases)
    write_tokenizer(it.directory, {VOCAB: TOOL, VOCAB + 1: "<another>"})
    it.config["trainable_token_indices"] = [VOCAB]
    it.tensors[f"{EMBEDDING}.token_adapter.trainable_tokens_delta"] = tensor(1, HIDDEN)
    it.write()


@bad("BM023")
def another_family(it: Specimen, bases: Path) -> None:
    with_tokens(it, bases)
    write_tokenizer(it.directory, texts={i: f"token{i}" for i in range(3, VOCAB)})
    it.write()


@bad("BM024")
def a_word_of_a_sister_model(it: Specimen, bases: Path) -> None:
    with_tokens(it, bases)
    write_tokenizer(it.directory, texts={7: "words7"})
    it.write()


@bad("BM025")
def another_chat_template(it: Specimen, bases: Path) -> None:
    with_tokens(it, bases)
    write_tokenizer(it.directory, chat_template="{{ messages }}", bos_token="<unused0>")  # noqa: S106  no password
    it.write()


@bad("BM026")
def a_token_that_was_never_embedded(it: Specimen, bases: Path) -> None:
    with_tokens(it, bases)
    write_tokenizer(it.directory, {VOCAB: "<image_soft_token>"})
    it.write()


@bad("BM028", "HD012")
def a_row_of_no_token(it: Specimen, bases: Path) -> None:
    with_tokens(it, bases)
    it.config["trainable_token_indices"] = [5, VOCAB]
    it.tensors[f"{EMBEDDING}.token_adapter.trainable_tokens_delta"] = tensor(2, HIDDEN)
    it.write()
