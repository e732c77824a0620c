"""What is read of the tokenizer beside an adapter, whichever files and versions wrote it."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.read.tokenizer import AddedToken, read_tokenizer

WHOLE = {
    "version": "1.0",
    "added_tokens": [
        {"id": 0, "content": "<s>", "special": True},
        {"id": 4, "content": "<my_tool>", "special": False},
    ],
    "normalizer": None,
    "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2, "merges": 3}, "merges": [["a", "b"], ["]", "}"]]},
}
FILES = ("tokenizer.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")


def write(directory: Path, **files: object) -> None:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        (directory / f"{name}.json").write_text(text, encoding="utf-8")


def test_no_file_no_tokenizer(tmp_path: Path) -> None:
    assert read_tokenizer(tmp_path) is None


def test_the_whole_file_says_all(tmp_path: Path) -> None:
    write(tmp_path, tokenizer=WHOLE, tokenizer_config={"eos_token": {"content": "<my_tool>"}, "bos_token": "<s>"})
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer
    assert tokenizer.vocabulary == {0: "<s>", 1: "a", 2: "b", 3: "merges"}
    assert tokenizer.added == (AddedToken(0, "<s>", special=True), AddedToken(4, "<my_tool>", special=False))
    assert (tokenizer.n_tokens, tokenizer.special_ids) == (5, {"bos": 0, "eos": 4})
    assert tokenizer.faults == ()


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("sort", [False, True])
def test_the_way_it_is_laid_out_changes_nothing(indent: int | None, sort: bool, tmp_path: Path) -> None:
    """The merges are cut out before the file is parsed, if they stand where tokenizers writes them."""
    write(tmp_path, tokenizer=json.dumps(WHOLE, indent=indent, sort_keys=sort))
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer
    assert (len(tokenizer.vocabulary), len(tokenizer.added), tokenizer.faults) == (4, 2, ())


def test_unigram_keeps_its_vocabulary_as_a_list(tmp_path: Path) -> None:
    write(tmp_path, tokenizer={"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["▁the", -3.5]]}})
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer
    assert tokenizer.vocabulary == {0: "<unk>", 1: "▁the"}


def test_a_slow_tokenizer_has_its_added_tokens_elsewhere(tmp_path: Path) -> None:
    write(tmp_path, added_tokens={"<my_tool>": 7}, special_tokens_map={"pad_token": "<my_tool>"})
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer
    assert tokenizer.added == (AddedToken(7, "<my_tool>", special=False),)
    assert (tokenizer.n_tokens, tokenizer.special_ids) == (8, {"pad": 7})
    write(tmp_path, tokenizer_config={"added_tokens_decoder": {"7": {"content": "<other>", "special": True}}})
    again = read_tokenizer(tmp_path)
    assert again
    assert again.added == (AddedToken(7, "<other>", special=True),)


def test_the_chat_template_is_the_default_one(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    for stated, expected in (("plain", "plain"), (named, "yes"), (named[:1], None), (None, None)):
        write(tmp_path, tokenizer_config={"chat_template": stated, "padding": str(stated)})
        tokenizer = read_tokenizer(tmp_path)
        assert tokenizer
        assert tokenizer.chat_template == expected
    (tmp_path / "chat_template.jinja").write_text("of the file", encoding="utf-8")
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer
    assert tokenizer.chat_template == "of the file"


@pytest.mark.parametrize("content", ["", "{", "[]", "version https://git-lfs.github.com/spec/v1", "\x00"])
def test_what_is_no_json_object_is_a_fault(content: str, tmp_path: Path) -> None:
    write(tmp_path, tokenizer=content)
    tokenizer = read_tokenizer(tmp_path)
    assert tokenizer
    assert [path.name for path, _ in tokenizer.faults] == ["tokenizer.json"]
    assert tokenizer.n_tokens == 0


WORDS = (
    "added_tokens added_tokens_decoder model vocab merges id content special 7 -1 ² bos_token eos_token chat_template "
    "name template default"
)
KEYS = st.sampled_from(WORDS.split())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.fixed_dictionaries({name: VALUES | st.dictionaries(KEYS, VALUES, max_size=4) for name in FILES}))
def test_any_json_is_read(files: dict[str, object]) -> None:
    with TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_text(json.dumps(content), encoding="utf-8")
        assert read_tokenizer(Path(folder))


@given(st.binary(max_size=40))
def test_any_bytes_are_read(data: bytes) -> None:
    with TemporaryDirectory() as folder:
        for name in (*FILES, "chat_template.jinja"):
            (Path(folder) / name).write_bytes(data)
        assert read_tokenizer(Path(folder))
