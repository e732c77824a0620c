"""What `make targets` found: measured.tsv, one server's answer to one adapter a line, and uses.tsv."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from converter.targets.tables import Fact, Target, target_named

HERE = Path(__file__).parent
Tables = Callable[[str], Target]


class Measured(NamedTuple):
    target: str
    version: str
    base: str
    adapter: str
    outcome: str
    ratio: float | None
    said: str


class Used(NamedTuple):
    """Of an adapter: its base's class, what it makes use of, and the rules that refuse it wherever it goes."""

    architecture: str
    features: tuple[str, ...]
    codes: tuple[str, ...]


@cache
def measured() -> tuple[Measured, ...]:
    return tuple(
        Measured(target, version, base, adapter, outcome, float(ratio) if ratio else None, said)
        for target, version, base, adapter, outcome, ratio, said in _rows("measured.tsv")
    )


@cache
def used() -> Mapping[tuple[str, str], Used]:
    return {
        (base, adapter): Used(architecture, tuple(features.split()), tuple(codes.split()))
        for base, adapter, architecture, features, codes in _rows("uses.tsv")
    }


def _rows(name: str) -> Iterator[list[str]]:
    _, *lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return (line.split("\t") for line in lines)


def facts(row: Measured, tables: Tables = target_named) -> list[Fact | None]:
    """What the target's table says of each feature of the row's adapter."""
    use = used()[row.base, row.adapter]
    return [tables(row.target).fact(feature, row.version, use.architecture) for feature in use.features]


def said(row: Measured, tables: Tables = target_named) -> str:
    """What adapter-check says of the row's adapter: exact, refused, silent, or unknown."""
    if used()[row.base, row.adapter].codes:
        return "refused"
    verdicts = {fact.verdict if fact else "unknown" for fact in facts(row, tables)}
    return next((verdict for verdict in ("unknown", "refused", "silent") if verdict in verdicts), "exact")


def disagreements(tables: Tables = target_named) -> list[tuple[Measured, str]]:
    """Rows in which the server did something else. An adapter that is broken in itself is refused whatever it does."""
    found = ((row, said(row, tables)) for row in measured())
    return [(row, verdict) for row, verdict in found if verdict != row.outcome and not _is_broken(row)]


def _is_broken(row: Measured) -> bool:
    return bool(used()[row.base, row.adapter].codes)
