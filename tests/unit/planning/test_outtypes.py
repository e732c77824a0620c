"""Which type a touched tensor is stored as."""

from typing import Final

import pytest

from converter.errors import ConverterError
from converter.planning.outtypes import OUTTYPES, factor_type, merged_type

FLOATS: Final = ("F64", "F32", "F16", "BF16")


@pytest.mark.parametrize(
    ("outtype", "base", "expected"),
    [
        (None, "F32", "F32"),
        ("auto", "F32", "F32"),
        ("auto", "F64", "F32"),
        ("auto", "F16", "F16"),
        ("auto", "BF16", "F16"),
        ("auto", "Q8_0", "Q8_0"),
        ("auto", "Q4_K", "Q8_0"),
        ("auto", "IQ2_XXS", "Q8_0"),
        ("f32", "Q4_K", "F32"),
        ("f16", "F32", "F16"),
        ("bf16", "F32", "BF16"),
        ("q8_0", "F32", "Q8_0"),
        ("as-base", "BF16", "BF16"),
        ("as-base", "Q4_K", "Q4_K"),
    ],
)
def test_the_type_of_a_merged_tensor(outtype: str | None, base: str, expected: str) -> None:
    assert merged_type(outtype, base, "w", 256).name == expected


def test_a_row_that_is_no_whole_number_of_blocks() -> None:
    assert merged_type("auto", "Q5_0", "w", 48).name == "F16"
    with pytest.raises(ConverterError, match=r"^w: rows of 48 elements don't fit Q8_0 \(blocks of 32\)"):
        merged_type("q8_0", "F32", "w", 48)


@pytest.mark.parametrize("outtype", [None, "auto", "as-base"])
def test_factors_keep_their_type(outtype: str | None) -> None:
    found = [factor_type(outtype, dtype).name for dtype in (*FLOATS, "F8_E4M3", "F8_E5M2")]
    assert found == ["F32", "F32", "F16", "BF16", "F16", "F16"]


@pytest.mark.parametrize(("outtype", "expected"), [("f32", "F32"), ("f16", "F16"), ("bf16", "BF16")])
def test_factors_take_the_type_asked_for(outtype: str, expected: str) -> None:
    assert {factor_type(outtype, dtype).name for dtype in FLOATS} == {expected}


def test_factors_are_not_quantised() -> None:
    with pytest.raises(ConverterError, match="factors are not quantised"):
        factor_type("q8_0", "F32")


def test_every_outtype_has_a_type() -> None:
    assert [merged_type(outtype, "F16", "w", 256).name for outtype in OUTTYPES] == [
        "F16", "F32", "F16", "BF16", "Q8_0", "F16",
    ]  # fmt: skip
