"""Pages that say what the code says: docs/rules.md the rules' docstrings, docs/targets.md the servers' tables."""

import os
import re
from pathlib import Path

from converter.report.documentation import rules_page
from converter.report.targets_page import readme_table, targets_page

TARGETS = Path(__file__).parents[2] / "docs" / "targets.md"
README = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"(?<=<!-- targets -->\n).*?(?=<!-- /targets -->)", re.DOTALL)
PAGE = Path(__file__).parents[2] / "docs" / "rules.md"


def test_the_rules_page_is_generated() -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(rules_page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == rules_page()


def test_the_targets_page_is_generated() -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        TARGETS.write_text(targets_page(), encoding="utf-8")
    assert TARGETS.read_text(encoding="utf-8") == targets_page()


def test_the_readme_opens_with_what_the_tables_say() -> None:
    text = README.read_text(encoding="utf-8")
    if os.environ.get("UPDATE_GOLDEN"):
        text = _BLOCK.sub(lambda _: readme_table() + "\n", text)
        README.write_text(text, encoding="utf-8")
    assert _BLOCK.findall(text) == [readme_table() + "\n"]
