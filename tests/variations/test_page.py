"""docs/variations.md is the table: every cell of the page is what the table expects, the ratios aside."""

from fixtures.variation import BASES
from fixtures.variations import VARIATIONS
from tests.variations.cells import expected
from tests.variations.page import KINDS, PAGE, render, without_numbers


def test_the_page_is_the_table() -> None:
    """UPDATE_VARIATIONS=1 make variations writes it again."""
    outcomes = {
        (variation.name, column, kind): expected(variation, column, kind) or 0.0
        for variation in VARIATIONS
        for column in BASES
        for kind in KINDS
    }
    assert without_numbers(PAGE.read_text(encoding="utf-8")) == without_numbers(render(outcomes))
