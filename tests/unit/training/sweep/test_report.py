"""The report's numbers against the files that the trials left, read again without the code that made it."""

import csv
import json
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from converter.training.sweep.recommendation import Recommendation
from converter.training.sweep.run import SweepOutcome, sweep, write_report
from converter.training.sweep.table import recommendation_text, text_table
from converter.training.watch import Unwatched
from tests.unit.training.sweep.fake_training import FakeTraining, settings

PLAN = """
[sweep]
n_trials = 12
[space]
r = [16, 32, 64]
lora_dropout = [0.05, 0.5]
head = ["none", "lora"]
seed = [0, 1]
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> SweepOutcome:
    directory = tmp_path_factory.mktemp("report")
    (directory / "sweep.toml").write_text(PLAN)
    training = FakeTraining(fails=32)
    run = settings(directory, general_text=None)
    path, place = str(directory / "sweep.toml"), directory / "<sweep> & more"
    return sweep(path, run, place, training, Unwatched(), base_has_biases=False)


class Page(HTMLParser):
    """The tables of a page by id, each cell its data-value where it has one; and what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.classes: list[str] = []
        self._rows: list[list[str]] = []
        self._value: str | None = None
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.fetched += [
            value for name, value in given.items() if name in ("src", "href", "xlink:href") and value[0] != "#"
        ]
        self.ids += [given["id"]] if "id" in given else []
        if tag == "table":
            self._rows = self.tables.setdefault(given.get("id", ""), [])
        elif tag == "tr":
            self._rows.append([])
            self.classes.append(given.get("class", ""))
        elif tag in ("td", "th"):
            self._in_cell, self._value = True, given.get("data-value") or None
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self._rows[-1][-1] = self._value if self._value is not None else self._rows[-1][-1] + data.strip()


@pytest.fixture(scope="module")
def page(outcome: SweepOutcome) -> Page:
    return Page(outcome.report.read_text(encoding="utf-8"))


def by_heading(table: list[list[str]]) -> list[dict[str, str]]:
    return [dict(zip(table[0], row, strict=False)) for row in table[1:]]  # a trial without an end has one wide cell


def last_losses(directory: Path) -> dict[int, float]:
    """Each trial's last eval loss, from its metrics file alone."""
    losses = {}
    for path in directory.glob("trials/*/metrics.jsonl"):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found = [line["eval_loss"] for line in lines if "eval_loss" in line]
        if found:
            losses[int(path.parent.name[:4])] = found[-1]
    return losses


def reports(directory: Path) -> dict[int, dict[str, Any]]:
    return {
        int(path.parent.name): json.loads(path.read_text()) for path in directory.glob("trials/*/training_report.json")
    }


def differing(directory: Path, rows: list[dict[str, str]]) -> list[int]:
    """Trials whose eval loss isn't the one of their metrics."""
    wanted = last_losses(directory)
    return [
        int(row["trial"]) for row in rows if row["eval loss"] and float(row["eval loss"]) != wanted[int(row["trial"])]
    ]


def test_the_pages_numbers_are_the_metrics(outcome: SweepOutcome, page: Page) -> None:
    directory = outcome.report.parent
    rows = by_heading(page.tables["trials"])
    assert [int(row["trial"]) for row in rows] == [result.number for result in outcome.results]
    assert {int(row["trial"]) for row in rows if row["eval loss"]} == set(last_losses(directory))
    assert differing(directory, rows) == []
    for number, report in reports(directory).items():
        (row,) = [row for row in rows if int(row["trial"]) == number]
        assert float(row["train loss"]) == report["train_loss"]
        assert float(row["perplexity"]) == report["perplexity"]["adapter"]
        assert int(row["size"]) == report["deployments"][row["deployed"]]["nbytes"]


def test_a_wrong_number_would_be_seen(outcome: SweepOutcome) -> None:
    text = outcome.report.read_text(encoding="utf-8")
    loss = next(iter(last_losses(outcome.report.parent).values()))
    planted = Page(text.replace(f'data-value="{loss}"', f'data-value="{loss + 1e-4}"'))
    assert len(differing(outcome.report.parent, by_heading(planted.tables["trials"]))) >= 1


def test_the_csv_has_every_setting_and_number(outcome: SweepOutcome) -> None:
    directory = outcome.report.parent
    with (directory / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = last_losses(directory)
    assert [int(row["trial"]) for row in rows] == [result.number for result in outcome.results]
    for row, result in zip(rows, outcome.results, strict=True):
        number = int(row["trial"])
        assert (row["eval_loss"] and float(row["eval_loss"])) == wanted.get(number, "")
        assert row["state"] == result.state
        assert {name: row[name] for name in ("r", "head", "base", "max_length")} == {
            name: str(result.settings[name]) for name in ("r", "head", "base", "max_length")
        }
    for number, report in reports(directory).items():
        (row,) = [row for row in rows if int(row["trial"]) == number]
        assert int(row["lora_nbytes"] or 0) == (report["deployments"]["lora"]["nbytes"] or 0)
        perplexity = report["perplexity"]
        assert float(row["forgetting_percent"]) == pytest.approx(100 * (perplexity["adapter"] / perplexity["base"] - 1))


def test_heads_are_side_by_side(outcome: SweepOutcome, page: Page) -> None:
    means = {row["head"]: float(row["eval loss"]) for row in by_heading(page.tables["heads"])}
    wanted = last_losses(outcome.report.parent)
    for head in ("none", "lora"):
        alike = [
            r for r in outcome.results if r.values.head == head and r.values.r == 64 and r.values.lora_dropout == 0.05
        ]
        assert means[f"head {head}"] == pytest.approx(sum(wanted[r.number] for r in alike) / len(alike))
    assert len(page.tables["direct"]) == 1 + 2  # r 16 and 64; r 32 failed


def test_the_recommended_row_is_marked_and_the_others_say_how_they_ended(outcome: SweepOutcome, page: Page) -> None:
    assert isinstance(outcome.recommendation, Recommendation)
    rows = by_heading(page.tables["trials"])
    assert [int(row["trial"]) for row in rows if row["state"] == "recommended"] == [outcome.recommendation.trial.number]
    assert page.classes.count("best") == 1
    assert {row["train loss"] for row in rows if row["state"] == "failed"} == {"out of memory at r 32"}
    assert {"pruned", "failed", "completed"} <= set(page.classes)


def test_the_page_needs_nothing_else(outcome: SweepOutcome, page: Page) -> None:
    assert page.fetched == []
    assert "@import" not in (text := outcome.report.read_text(encoding="utf-8"))
    assert "<sweep>" not in text  # a path is text, not markup
    assert "&lt;sweep&gt; &amp; more" in text


def test_the_plots_are_well_formed_and_take_the_pages_colours(outcome: SweepOutcome) -> None:
    text = outcome.report.read_text(encoding="utf-8")
    plots = [f"<svg {part.split('</svg>')[0]}</svg>" for part in text.split("<svg ")[1:]]
    labels = [ET.fromstring(plot).get("aria-label") for plot in plots]  # noqa: S314  our own
    assert labels == ["Eval loss against rank, by head", "Learning curves", "Forgetting against eval loss"]
    assert all("var(--head-none)" in plot and "currentColor" in plot for plot in plots)


def test_the_terminals_table_is_aligned_and_stars_the_recommended(outcome: SweepOutcome) -> None:
    assert isinstance(outcome.recommendation, Recommendation)
    chosen = outcome.recommendation.trial
    heading, *lines = text_table(outcome.results, chosen).splitlines()
    assert len(lines) == len(outcome.results)
    assert [line for line in lines if line.endswith("*")] == [
        line for line in lines if line.startswith(f" {chosen.number:04}")
    ]
    end = heading.index("eval loss") + len("eval loss")
    assert all(line[:end].rstrip()[-1].isdigit() for line in lines)
    text = recommendation_text(outcome.recommendation)
    assert text.startswith(f"Recommended: trial {chosen.number:04}. Head none, r 64")
    assert outcome.recommendation.command in text
    assert text.isascii()


def test_a_trial_whose_directory_is_gone_is_not_recommended(outcome: SweepOutcome) -> None:
    assert isinstance(outcome.recommendation, Recommendation)
    chosen = outcome.recommendation.trial
    moved = chosen.directory.rename(chosen.directory.with_name("moved"))
    try:
        again = write_report(outcome.report.parent, 0.01)
    finally:
        moved.rename(chosen.directory)
    (gone,) = [result for result in again.results if result.number == chosen.number]
    assert (gone.state, gone.reason[:28]) == ("failed", "its report can't be read any")
    assert isinstance(again.recommendation, Recommendation)
    assert again.recommendation.trial.number != chosen.number
