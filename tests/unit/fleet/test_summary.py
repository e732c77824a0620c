"""What is made of the table for people and for other programs: a page, CSV and Parquet."""

import csv
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from converter.fleet.export import COLUMNS, write_export
from converter.fleet.html import write_html
from converter.fleet.manifest import Defaults, read_manifest
from converter.fleet.rows import Row
from converter.fleet.table import opened
from tests.unit.fleet.small_fleet import Serial, run_fleet, write_adapter, write_fleet, write_manifest

EVIL = "<img src=x onerror=alert(1)>"


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Of five adapters: two fine, one refused whose name is HTML, one missing; the last isn't done."""
    write_fleet(tmp_path, 2, 1)
    write_adapter(tmp_path / EVIL, with_head=True)
    rows: list[dict[str, object]] = [
        {"adapter": name, "base": "base0.gguf", "output": f"out/{number}.gguf"}
        for number, name in enumerate(("a0", "a1", EVIL, "missing"))
    ]
    path = write_manifest(tmp_path / "fleet.jsonl", rows)
    run_fleet(path, Serial())
    return write_manifest(path, [*rows, {"adapter": "later", "output": "out/later.gguf"}])


def rows_of(manifest: Path) -> list[Row]:
    return list(read_manifest(manifest, Defaults()))


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_says_how_it_ended(manifest: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "fleet.sqlite") as table:
        write_html(tmp_path / "x.html", table, rows_of(manifest), manifest)
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.DOTALL))
    for words in (
        "2 of 5 fine",
        "refused 1",
        "missing 1",
        "not done 1",
        "HD001 lm-head-lora-on-tied-base 1",
        "base0.gguf 4 2",
    ):
        assert words in text, words


def test_the_page_needs_nothing_else_and_runs_nothing(manifest: Path, tmp_path: Path) -> None:
    with opened(tmp_path / "fleet.sqlite") as table:
        write_html(tmp_path / "x.html", table, rows_of(manifest), manifest)
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert "&lt;img src=x" in page
    tags = Tags()
    tags.feed(page)
    assert not {"img", "script", "link", "iframe"} & {tag for tag, _ in tags.found}
    assert not {"src", "href", "onerror"} & {name for _, attributes in tags.found for name in attributes}
    assert "url(" not in page
    assert "@import" not in page


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_the_table_can_be_had_otherwise(ending: str, manifest: Path, tmp_path: Path) -> None:
    path = tmp_path / f"x{ending}"
    with opened(tmp_path / "fleet.sqlite") as table:
        write_export(path, table, rows_of(manifest))
    if ending == ".csv":
        lines = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    else:
        lines = pq.read_table(path).to_pylist()
    assert tuple(lines[0]) == COLUMNS
    assert [line["state"] for line in lines] == ["fine", "fine", "refused", "missing"]
    assert [str(line["status"]) for line in lines] == ["0", "0", "1", "3"]
    assert lines[2]["adapter"] == str(tmp_path / EVIL)
    assert lines[2]["codes"] == "HD001"
