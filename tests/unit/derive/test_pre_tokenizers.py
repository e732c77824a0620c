import tomllib
from pathlib import Path
from typing import Any

import pytest

from converter.derive import pre_tokenizers
from converter.derive.pre_tokenizers import UnknownTokenizer, adds_space, byte_level_name, template_of

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
TO_MARK = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def _table() -> dict[str, Any]:
    path = Path(pre_tokenizers.__file__).with_suffix(".toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def byte_level(*steps: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)}, "model": {}, **more}


def test_what_says_nothing_of_cuts_is_left_out() -> None:
    assert byte_level_name(byte_level({"type": "ByteLevel"})) == "gpt-2"
    assert byte_level_name(byte_level(DIGITS, BYTES, normalizer={"type": "NFC"})) == "smollm"


@pytest.mark.parametrize(
    "tokenizer",
    [
        byte_level({**BYTES, "add_prefix_space": True}),
        byte_level({**DIGITS, "individual_digits": False}, BYTES),
        byte_level(BYTES, DIGITS),
        byte_level(BYTES, normalizer={"type": "NFKC"}),
        byte_level(BYTES, model={"ignore_merges": True}),
        byte_level({"type": "Split", "pattern": {"Regex": "x"}, "behavior": "Isolated", "invert": False}, BYTES),
    ],
)
def test_anything_else_is_unknown(tokenizer: dict[str, Any]) -> None:
    with pytest.raises(UnknownTokenizer):
        byte_level_name(tokenizer)


def test_what_matches_a_part_of_a_text_must_isolate_it() -> None:
    """Of a regex that matches everything it is the same to remove the rest; DeepSeek's first one finds digits alone."""
    uncut = {"type": "ByteLevel", "use_regex": False}
    removes: dict[str, Any] = {"type": "Split", "behavior": "Removed", "invert": True}
    every = _table()["qwen2"]["steps"][0]["regex"]
    assert byte_level_name(byte_level({**removes, "pattern": {"Regex": every}}, uncut)) == "qwen2"
    splits = [dict(step) for step in _table()["deepseek-v3"]["steps"] if step["type"] == "Split"]
    stated = [{"type": "Split", "pattern": {"Regex": step["regex"]}} for step in splits]
    isolated = [{**step, "behavior": "Isolated", "invert": False} for step in stated]
    assert byte_level_name(byte_level(*isolated, uncut)) == "deepseek-v3"
    with pytest.raises(UnknownTokenizer):
        byte_level_name(byte_level(*({**step, "behavior": "Removed", "invert": True} for step in stated), uncut))


@pytest.mark.parametrize(
    ("tokenizer", "expected"),
    [
        ({"normalizer": TO_MARK}, False),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, TO_MARK]}}, True),
        ({"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}}, True),
        (
            {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": False}},
            False,
        ),
    ],
)
def test_sentencepiece_puts_a_space_before_a_text_or_not(tokenizer: dict[str, Any], *, expected: bool) -> None:
    assert adds_space(tokenizer) == expected


def test_a_step_that_sentencepiece_has_not_is_unknown() -> None:
    with pytest.raises(UnknownTokenizer, match="Lowercase"):
        adds_space({"normalizer": {"type": "Sequence", "normalizers": [TO_MARK, {"type": "Lowercase"}]}})


def test_a_template_is_what_stands_round_a_text() -> None:
    pieces = [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}, {"SpecialToken": {"id": "</s>"}}]
    table = {"<s>": {"ids": [1]}, "</s>": {"ids": [2]}}
    processor = {"type": "TemplateProcessing", "single": pieces, "special_tokens": table}
    steps = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, processor]}
    assert template_of({"post_processor": steps}) == ((1,), (2,))
    assert template_of({}) == ((), ())
    with pytest.raises(UnknownTokenizer, match="BertProcessing"):
        template_of({"post_processor": {"type": "BertProcessing"}})
