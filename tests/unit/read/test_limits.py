"""docs/limits.md says what the code does."""

import re
from pathlib import Path

from converter.read import limits

PAGE = Path(__file__).parents[3] / "docs" / "limits.md"


def test_the_page_lists_every_limit() -> None:
    rows = re.findall(r"^\| ([A-Z_]+) \| ([\d,]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: int(n.replace(",", "")) for name, n in rows} == {
        name: value for name, value in vars(limits).items() if name.isupper()
    }
