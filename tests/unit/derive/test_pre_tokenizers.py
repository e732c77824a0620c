from typing import Any

import pytest

from converter.derive.pre_tokenizers import UnknownTokenizer, adds_space, byte_level_name, template_of

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}
TO_MARK = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


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
