"""Links of pages: those of Markdown as GitHub shows it, and those of the site's HTML."""

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

# A link's target, inline or in a definition of its own: [text](target), [text]: target
LINK: Final = re.compile(r"(\]\(|^\[[^\]]+\]: )([^)\s]+)", re.MULTILINE)
_HEADING: Final = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_FENCE: Final = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_CODE: Final = re.compile(r"^(```|~~~).*?^\1|`[^`\n]*`", re.MULTILINE | re.DOTALL)
# The theme's script loads these from a CDN for pages that have the class, and GitHub's stars for a page with a source.
_LOADING: Final = ("mermaid", "glightbox", "pyodide", "md-source")
_FROM_ELSEWHERE: Final = re.compile(r"url\(\s*['\"]?(?:https?:)?//|@import")


def markdown_faults(pages: Iterable[Path]) -> Iterator[str]:
    """Links between files that lead nowhere, as GitHub names headings."""
    for path in pages:
        for link in LINK.finditer(_CODE.sub("", path.read_text(encoding="utf-8"))):
            target = urlsplit(link[2])
            file = path.parent / unquote(target.path) if target.path else path
            if target.scheme:
                continue
            if not file.exists():
                yield f"{path}: {link[2]}: no such file"
            elif target.fragment and file.suffix == ".md" and target.fragment not in _headings(file):
                yield f"{path}: {link[2]}: no such heading"


def _headings(path: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings (letters, digits, hyphens), and those that it states itself."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    titles = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in _HEADING.findall(text))
    stated = re.findall(r'<a id="([^"]+)">', text)
    return {*stated, *(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)}


class _Use(NamedTuple):
    tag: str
    target: str


class _Page(HTMLParser):
    """What a page can be linked by, what it links, and the classes of its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.uses: list[_Use] = []
        self.classes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"id", "name"}:
                self.anchors.add(value or "")
            elif name in {"href", "src", "srcset", "data", "poster", "action"}:
                self.uses.append(_Use(tag, value or ""))
            elif name == "class":
                self.classes.update((value or "").split())


def faults(html: Path) -> Iterator[str]:
    """Links and resources of a site that lead nowhere, and resources that aren't its own."""
    pages = {path.resolve(): _Page(path.read_text(encoding="utf-8")) for path in sorted(html.rglob("*.html"))}
    for path, page in pages.items():
        name = path.relative_to(html.resolve())
        yield from (f"{name}: {use.target}: {why}" for use in page.uses if (why := _fault(html, path, use, pages)))
        yield from (
            f"{name}: the theme would load {mark} from elsewhere" for mark in page.classes.intersection(_LOADING)
        )
    for path in html.rglob("*.css"):
        if _FROM_ELSEWHERE.search(path.read_text(encoding="utf-8")):
            yield f"{path.relative_to(html)}: loads something from elsewhere"


def _fault(html: Path, path: Path, use: _Use, pages: dict[Path, _Page]) -> str:
    target = urlsplit(use.target)
    if target.scheme in {"http", "https"} or target.netloc:
        return "" if use.tag == "a" else f"<{use.tag}> loads it from elsewhere"
    if target.scheme:
        return "" if target.scheme == "data" else f"no link of a site: {target.scheme}"
    # 404.html is served for any address, so its links begin at the site's root.
    root = html.resolve() if target.path.startswith("/") else path.parent
    file = (root / unquote(target.path).lstrip("/")).resolve() if target.path else path
    file = file / "index.html" if file.is_dir() else file
    if not file.is_file():
        return "no such page"
    if target.fragment and file in pages and unquote(target.fragment) not in pages[file].anchors:
        return "no such heading"
    return ""
