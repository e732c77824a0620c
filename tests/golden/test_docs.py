"""docs/rules.md is what the rules' docstrings say."""

import os
from pathlib import Path

from converter.report.documentation import rules_page

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"


def test_the_rules_page_is_generated() -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(rules_page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == rules_page()
