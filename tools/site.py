"""The site: docs/ as pages for a browser, built by Zensical and held to its links.

python -m tools.site            builds it in .venv/site/html, whose index.html opens without a server

Pages are written for GitHub, where they are read too. What they link outside docs/ is in no site: CONTRIBUTING.md and
CHANGELOG.md come along as pages, and other files of the repository are linked where it is published.
"""

import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from converter.version import page
from tools import links

_ROOT: Final = Path(__file__).parent.parent
_SITE: Final = _ROOT / ".venv" / "site"
_PAGES_OF_ROOT: Final = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def main() -> None:
    html = build(_SITE)
    faults = list(links.faults(html))
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"{html / 'index.html'}: {sum(1 for _ in html.rglob('*.html'))} pages, {len(faults)} faults")
    sys.exit(bool(faults))


def build(directory: Path) -> Path:
    """The site's folder, below a directory that is made anew for it.

    Raises RuntimeError where Zensical doesn't take the pages.
    """
    shutil.rmtree(directory, ignore_errors=True)
    _stage(directory / "docs")
    shutil.copy(_ROOT / "zensical.toml", directory)
    ran = subprocess.run(
        [sys.executable, "-m", "zensical", "build"],
        cwd=directory, env=os.environ | {"NO_COLOR": "1"}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if ran.returncode:
        raise RuntimeError(f"zensical build: status {ran.returncode}\n{ran.stdout}{ran.stderr}")
    return directory / "html"


def _stage(docs: Path) -> None:
    shutil.copytree(_ROOT / "docs", docs)
    for source, copy in _PAGES_OF_ROOT.items():
        shutil.copy(_ROOT / source, docs / copy)
    for path in docs.rglob("*.md"):
        name = path.relative_to(docs).as_posix()
        path.write_text(_linked(name, path.read_text(encoding="utf-8")), encoding="utf-8")


def _linked(name: str, text: str) -> str:
    """A page's text with the links that it has in the site."""
    of_root = {copy: source for source, copy in _PAGES_OF_ROOT.items()}
    original = of_root.get(name, f"docs/{name}")
    return links.LINK.sub(lambda link: link[1] + _target(original, name, link[2]), text)


def _target(original: str, name: str, target: str) -> str:
    """Where a link of a file of the repository goes from the page that the file is in the site."""
    if re.match(r"[a-z]+:|#", target):
        return target
    path, hash_, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(original), path))
    path = f"docs/{_PAGES_OF_ROOT[path]}" if path in _PAGES_OF_ROOT else path
    if not path.startswith("docs/"):
        return page(path) + hash_ + anchor
    return posixpath.relpath(path, posixpath.dirname(f"docs/{name}")) + hash_ + anchor


def pages_of_repository() -> Iterator[Path]:
    """Every page that is read on GitHub."""
    yield from sorted((*_ROOT.glob("*.md"), *(_ROOT / "docs").rglob("*.md")))


if __name__ == "__main__":
    main()
