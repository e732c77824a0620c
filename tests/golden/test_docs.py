"""docs/rules.md is what the rules' docstrings say, docs/architectures.md and README.md what the tables say."""

import os
from pathlib import Path

import pytest

from converter.report.documentation import rules_page
from tools import architectures_page

PAGES = {
    Path(__file__).parents[2] / "docs" / "rules.md": rules_page,
    architectures_page.PAGE: architectures_page.page,
    architectures_page.README: architectures_page.readme,
}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_generated(path: Path) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(PAGES[path](), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == PAGES[path]()


def test_readme_says_how_many_architectures_there_are() -> None:
    assert architectures_page.n_architectures() in architectures_page.README.read_text(encoding="utf-8")
