"""Pages that say what the code and its tables say: each is what is generated, to the letter."""

import os
import re
from pathlib import Path

import pytest

from converter.report.documentation import rules_page
from converter.report.targets_page import readme_table, targets_page
from tools import architectures_page, commands_page, json_page

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"(?<=<!-- targets -->\n).*?(?=<!-- /targets -->)", re.DOTALL)


def readme() -> str:
    """The README with the number of architectures, and the table that opens it."""
    assert _BLOCK.search(architectures_page.readme())
    return _BLOCK.sub(lambda _: readme_table() + "\n", architectures_page.readme())


PAGES = {
    ROOT / "docs" / "rules.md": rules_page,
    ROOT / "docs" / "targets.md": targets_page,
    commands_page.PAGE: commands_page.page,
    json_page.PAGE: json_page.page,
    architectures_page.PAGE: architectures_page.page,
    architectures_page.README: readme,
}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_is_generated(path: Path) -> None:
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(PAGES[path](), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == PAGES[path]()


def test_readme_says_how_many_architectures_there_are() -> None:
    assert architectures_page.n_architectures() in architectures_page.README.read_text(encoding="utf-8")
