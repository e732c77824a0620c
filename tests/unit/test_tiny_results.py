"""What the survey of tiny models says, and that what was measured keeps the promise."""

import pytest

from fixtures.survey import SURVEY
from tools.tiny_results import BASES, ROADS, Row, To, exact_models, failures, read


def _row(base: str, cell: str) -> Row:
    return Row("llama", base, "all-linear", "1e+00", dict.fromkeys(ROADS, cell))


@pytest.mark.parametrize(
    ("base", "cell", "verdict"),
    [
        ("3e-12", "9e-13", "exact"),
        ("3e-12", "2e-05", "wrong"),
        ("1e-05", "2e-05", "exact"),
        ("1e-05", "3e-05", "wrong"),
        ("3e-12", "not loaded", "wrong"),
        ("3e-12", "BM003, HD001", "refused"),
        ("3e-12", "status 2: no such file", "no code"),
        ("3e-12", "CRASH KeyError", "crash"),
        ("CRASH", "CRASH", "crash"),
        ("4e+00", "1e+00", "no telling"),
        ("4e+00", "1e-12", "exact"),
        ("not loaded", "not loaded", "no telling"),
        ("not converted", "", ""),
    ],
)
def test_a_cell_says(base: str, cell: str, verdict: str) -> None:
    assert {_row(base, cell).verdict(road) for road in ROADS} == {verdict}


def test_a_failure_is_named() -> None:
    assert next(failures([_row("3e-12", "0.3")])).startswith("wrong: 5: llama all-linear directory_lora")


def test_every_model_was_measured() -> None:
    assert list(dict.fromkeys(row.model for row in read())) == list(SURVEY)


def test_nothing_is_wrong_and_nothing_crashed() -> None:
    verdicts = {verdict for row in read() for verdict in map(row.verdict, ROADS)}
    assert verdicts <= {"exact", "refused", "no telling", ""}


@pytest.mark.parametrize(("to", "at_least"), [("lora", 60), ("model", 75)])
def test_most_are_exact(to: To, at_least: int) -> None:
    assert len(exact_models(read(), *(f"{base}_{to}" for base in BASES[to]))) >= at_least


@pytest.mark.parametrize("options", [["--only", "llama"], ["--only", "llama", "--again"]])
def test_what_is_measured_again_keeps_the_rest(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from tools import tiny_models

    before, after = [_row("3e-12", "0.3"), _row("3e-12", "0.3")._replace(model="mamba")], _row("3e-12", "1e-12")
    written: list[list[Row]] = []
    monkeypatch.setattr(tiny_models, "read", lambda: before)
    monkeypatch.setattr(tiny_models, "write", lambda rows: written.append(list(rows)))
    monkeypatch.setattr(tiny_models, "_measured", lambda names: iter([[after] for name in names]))
    tiny_models.main(options)
    assert written[-1] == [before[1], after]
