"""The site is built from docs/, every link of it leads somewhere, and it loads nothing from elsewhere."""

import re
import tomllib
from pathlib import Path

import pytest

from converter.rules import RULES
from converter.version import REPOSITORY
from tools import links, site

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return site.build(tmp_path_factory.mktemp("site"))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A site of two pages, without a fault."""
    page = '<h1 id="top"></h1><a href="{other}#top"></a><a href="https://example.org"></a><a href="#top"></a>'
    (tmp_path / "page.html").write_text(page.format(other="rules.html"), encoding="utf-8")
    (tmp_path / "rules.html").write_text(page.format(other="page.html"), encoding="utf-8")
    (tmp_path / "style.css").write_text("a { background: url(data:image/svg+xml,x) }", encoding="utf-8")
    assert list(links.faults(tmp_path)) == []
    return tmp_path


def test_the_site_has_every_page_and_no_broken_link(html: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert pages <= {path.relative_to(html) for path in html.rglob("*.html")}
    assert list(links.faults(html)) == []


def test_every_page_is_in_the_navigation() -> None:
    """Zensical builds a page that nobody can find as well."""
    config = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    named = set(re.findall(r'"([\w/-]+\.md)"', config))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert named == {*pages, "changelog.md", "contributing.md"}, "a page goes into nav of zensical.toml"


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        ('<a href="nowhere.html">', "no such page"),
        ('<a href="rules.html#xx999">', "no such heading"),
        ('<a href="#nothing">', "no such heading"),
        ('<img src="https://example.org/a.png">', "loads it from elsewhere"),
        ('<img src="//example.org/a.png">', "loads it from elsewhere"),
        ('<script src="https://unpkg.com/a"></script>', "loads it from elsewhere"),
        ('<pre class="mermaid">', "from elsewhere"),
    ],
)
def test_what_is_wrong_with_a_page_is_told(small: Path, spoil: str, told: str) -> None:
    with (small / "page.html").open("a", encoding="utf-8") as page:
        page.write(spoil)
    (fault,) = links.faults(small)
    assert fault.startswith("page.html: ")
    assert told in fault


def test_a_style_that_loads_a_font_is_told(small: Path) -> None:
    with (small / "style.css").open("a", encoding="utf-8") as style:
        style.write("@font-face { src: url(https://example.org/font.woff2) }")
    assert list(links.faults(small)) == ["style.css: loads something from elsewhere"]


def test_links_between_files_lead_somewhere() -> None:
    """As GitHub shows the files, which names headings by a rule of its own."""
    assert list(links.markdown_faults(site.pages_of_repository())) == []


@pytest.mark.parametrize("link", ["gone.md", "page.md#gone", "#gone"])
def test_a_link_of_a_file_that_leads_nowhere_is_told(tmp_path: Path, link: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n## What `it` says\n\n[here](#what-it-says) `[no](link)` [there]({link})\n", "utf-8")
    (fault,) = links.markdown_faults([page])
    assert link in fault


def test_the_address_of_the_repository_is_stated_once() -> None:
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    assert urls["Repository"] == REPOSITORY
    assert all(url.startswith(REPOSITORY) for url in urls.values())


def test_the_figure_for_dark_pages_is_the_same() -> None:
    light, dark = (ROOT / "docs" / "assets" / f"tied-heads-{name}.svg" for name in ("light", "dark"))
    without_colours = [re.sub(r"#[0-9a-f]{6}", "", path.read_text(encoding="utf-8")) for path in (light, dark)]
    assert without_colours[0] == without_colours[1]


def test_every_rule_has_an_anchor(html: Path) -> None:
    page = (html / "rules.html").read_text(encoding="utf-8")
    assert [rule.code for rule in RULES if f'id="{rule.code.lower()}"' not in page] == []
