"""What tools/tiny_models.py measured: tools/data/tiny_models.tsv, what each cell says, and how many are exact."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

DATA: Final = Path(__file__).parent / "data" / "tiny_models.tsv"
Base = Literal["directory", "gguf", "checkpoint"]
To = Literal["lora", "model"]
KINDS: Final[tuple[To, ...]] = ("lora", "model")
# A GGUF without a table is merged into beside the directory it was made from.
BASES: Final[Mapping[To, tuple[Base, ...]]] = {
    "lora": ("directory", "gguf"),
    "model": ("directory", "gguf", "checkpoint"),
}
ROADS: Final = tuple(f"{base}_{to}" for to in KINDS for base in BASES[to])
NOT_LOADED: Final = "not loaded"
NOT_CONVERTED: Final = "not converted"
CRASH: Final = "CRASH"

Verdict = Literal["exact", "refused", "no code", "wrong", "crash", "no telling", ""]

_HEAD: Final = """\
# What becomes of a PEFT adapter on a tiny model by adapter-to-gguf, over the model's directory, over the GGUF that
# llama.cpp's own converter makes of it, and over that with --checkpoint where it has no table: written by
# `python -m tools.tiny_models`, and measured in real llama.cpp.
# A number is the share of the adapter's effect that is left undone (1e-5 and less is exact), a code is a refusal.
# base: the divergence of llama.cpp from transformers without an adapter; effect: that of the adapter from its base.
"""
_CODE: Final = re.compile(r"[A-Z]{2}\d{3}(?:, [A-Z]{2}\d{3})*")


class Row(NamedTuple):
    """An adapter on a model; ``cells`` by road, such as ``directory_lora``."""

    model: str
    base: str
    adapter: str
    effect: str
    cells: Mapping[str, str]

    @property
    def is_computed(self) -> bool:
        """Whether llama.cpp computes the base as transformers does."""
        return self.base not in {NOT_LOADED, NOT_CONVERTED} and float(self.base) < 1e-2

    def verdict(self, road: str) -> Verdict:
        """What a cell says. Where llama.cpp computes another base, a large number tells nothing."""
        cell = self.cells[road]
        if not cell or _CODE.fullmatch(cell):
            return "refused" if cell else ""
        if cell.startswith((CRASH, "status")):
            return "crash" if cell.startswith(CRASH) else "no code"
        if cell != NOT_LOADED and float(cell) <= self._limit:
            return "exact"
        return "wrong" if self.is_computed else "no telling"

    @property
    def _limit(self) -> float:
        return 2e-5 if self.is_computed and float(self.base) > 5e-6 else 1e-5


SAID: Final[Mapping[Base, str]] = {
    "directory": "over the directory",
    "gguf": "over the GGUF",
    "checkpoint": "with --checkpoint",
}
COLUMNS: Final = ("model", "base", "adapter", "effect", *ROADS)


def read() -> list[Row]:
    """The rows of the committed file; none where there is no file."""
    if not DATA.is_file():
        return []
    lines = [line for line in DATA.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [
        Row(line["model"], line["base"], line["adapter"], line["effect"], {road: line.get(road, "") for road in ROADS})
        for line in csv.DictReader(lines, delimiter="\t")
    ]


def write(rows: Iterable[Row]) -> None:
    """Write the file, by model."""
    text = io.StringIO()
    lines = csv.writer(text, delimiter="\t", lineterminator="\n")
    lines.writerow(COLUMNS)
    for row in sorted(rows, key=lambda row: row.model):
        lines.writerow([row.model, row.base, row.adapter, row.effect, *(row.cells[road] for road in ROADS)])
    unfinished = DATA.with_suffix(".part")
    unfinished.write_text(_HEAD + text.getvalue(), encoding="utf-8")
    unfinished.replace(DATA)


def exact_models(rows: Iterable[Row], *roads: str, adapter: str = "all-linear") -> list[str]:
    """The models on which an adapter is exact by one of these roads at least."""
    return [row.model for row in rows if row.adapter == adapter and "exact" in map(row.verdict, roads)]


def counts(rows: Iterable[Row]) -> Iterator[str]:
    """How many models an adapter on all linear layers is exact on, by each deployment."""
    found = list(rows)
    n = len({row.model for row in found})
    for to in KINDS:
        by_base = ", ".join(f"{len(exact_models(found, f'{base}_{to}'))} {SAID[base]}" for base in BASES[to])
        either = len(exact_models(found, *(f"{base}_{to}" for base in BASES[to])))
        yield f"`--to {to}`: exact on {either} of {n} models ({by_base})"


def failures(rows: Iterable[Row]) -> Iterator[str]:
    """The cells that are no promise kept, and those that can't be judged."""
    found = list(rows)
    for verdict in ("wrong", "crash", "no code", "no telling"):
        cells = [f"{row.model} {row.adapter} {road}" for row in found for road in ROADS if row.verdict(road) == verdict]
        yield f"{verdict}: {len(cells)}{': ' if cells else ''}{'; '.join(cells)}"
