"""In which order a GGUF keeps the rows of a checkpoint's matrix, or its columns: found by their numbers.

Rows that are alike don't tell which is which: the order does that the others are in, if there is only one.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np

from converter.matching.candidates import MOST_PAIRS, candidates
from converter.matching.grids import MOST_HELD, Grid, Sheet, blocks
from converter.matching.texts import order_text, permuting_texts
from converter.orders import order
from converter.values.orders import Indices, indices

_SAMPLED: Final = 48  # rows that are looked for first
_FIRST_ROWS: Final = 64  # by which columns are looked for first
_CERTAIN: Final = 0.9  # of the sampled rows: so many tell that there is no other order beside the one that they are in
_MOST_TRIED: Final = 1 << 16  # orders that rows with twins are tried against


class Way(NamedTuple):
    """How a GGUF keeps a matrix: its orders of rows and of columns; ``transposed`` where its rows are columns."""

    rows: str = ""
    columns: str = ""
    transposed: bool = False


class Unclear(NamedTuple):
    """The numbers are there, and don't tell which row is which."""

    why: str


def way_of(sheet: Sheet, grid: Grid, *, may_be_turned: bool) -> Way | Unclear | None:
    """How ``grid`` keeps ``sheet`` or a part of it, None where it doesn't. As it is comes first."""
    rows = row_order(sheet, grid)
    if rows is not None:
        return rows if isinstance(rows, Unclear) else Way(rows)
    is_held = sheet.n_elements <= MOST_HELD
    if is_held and sheet.shape == grid.shape and _may_be_turned(sheet, grid):
        columns = row_order(sheet.turned(), grid.turned())
        if columns is not None:
            return columns if isinstance(columns, Unclear) else Way(columns=columns)
    if is_held and may_be_turned:
        rows = row_order(sheet.turned(), grid)
        if rows is not None:
            return rows if isinstance(rows, Unclear) else Way(rows, transposed=True)
    return None


def _may_be_turned(sheet: Sheet, grid: Grid) -> bool:
    """Whether the first rows have the same columns, in whatever order: all of them are read where they have."""
    first = sheet.first(_FIRST_ROWS)
    n_rows, n_columns = first.shape
    some = candidates(first.turned(), grid.first(n_rows).turned(), _sampled(n_columns)) if grid.is_known else []
    return bool(some) and all(map(len, some))


def keeps(sheet: Sheet, grid: Grid, way: Way) -> bool:
    """Whether each number of the GGUF's matrix may have been rounded from that of the checkpoint."""
    if way.transposed:
        return keeps(sheet.turned(), grid, way._replace(transposed=False))
    if way.columns:
        return sheet.n_elements <= MOST_HELD and keeps(sheet.turned(), grid.turned(), Way(way.columns))
    n_rows = sheet.shape[0]
    try:
        found = indices(order(way.rows, n_rows, {}), n_rows)
    except ValueError:
        return False
    return len(found) == grid.shape[0] and sheet.shape[1] == grid.shape[1] and _agree(sheet, grid, found)


def _agree(sheet: Sheet, grid: Grid, found: Indices) -> bool:
    return all(
        bool(grid.rows(begin, end).agree(sheet.take(found[begin:end])).all()) for begin, end in blocks(*grid.shape)
    )


def row_order(sheet: Sheet, grid: Grid) -> str | Unclear | None:
    """The order in which ``grid`` has rows of ``sheet``; None where one of its rows isn't there."""
    (n, width), (n_grid, grid_width) = sheet.shape, grid.shape
    if width != grid_width or n_grid > n or not grid.is_known:
        return None
    sampled = _sampled(n_grid)
    found = candidates(sheet, grid, sampled)
    if not all(map(len, found)):
        return None
    is_certain = sum(len(its) == 1 for its in found) >= _CERTAIN * len(found)
    stays = all(row in its for row, its in zip(sampled, found, strict=True))
    if n == n_grid and is_certain and stays and _agree(sheet, grid, np.arange(n)):
        return ""
    if n * n_grid > MOST_PAIRS:
        return None
    return _searched(sheet, grid)


def _sampled(n: int) -> list[int]:
    rows = {0, n - 1, *np.linspace(0, n - 1, _SAMPLED // 2).astype(int).tolist()}
    rows |= {*np.random.default_rng(0).integers(0, n, _SAMPLED // 2).tolist()}
    return sorted(rows)


def _searched(sheet: Sheet, grid: Grid) -> str | Unclear | None:
    n, n_grid = sheet.shape[0], grid.shape[0]
    found = candidates(sheet, grid, range(n_grid))
    if not all(map(len, found)):
        return None
    if all(len(its) == 1 for its in found):
        one = np.concatenate(found)
        if len(np.unique(one)) < len(one):
            return Unclear("one of its rows is there twice")
        text = order_text(one, n)
        return Unclear("its rows are there, in no order of axes") if text is None else text
    return _of_twins(found, n)


def _of_twins(found: Sequence[Indices], n: int) -> str | Unclear:
    """The one order that every row may be in."""
    n_twins = sum(len(its) > 1 for its in found)
    fitting: list[str] = []
    for text in _tried(found, n):
        if _fits(text, n, found):
            fitting.append(text)
            if len(fitting) > 1:
                return Unclear(f"{n_twins} of its rows have a twin, and fit {_called(fitting[0])} and {fitting[1]}")
    if not fitting:
        return Unclear(f"{n_twins} of its rows have a twin, and no order of axes fits the others")
    return fitting[0]


def _called(text: str) -> str:
    return text or "the order that they are in"


def _tried(found: Sequence[Indices], n: int) -> Iterator[str]:
    known = [(row, int(its[0])) for row, its in enumerate(found) if len(its) == 1]
    if len(found) == n:
        for tried, text in enumerate(permuting_texts(n)):
            if tried == _MOST_TRIED:
                return
            yield text
        return
    shifts = {its - row for row, its in known}
    if len(shifts) == 1:  # a range
        begin = shifts.pop()
        part = order_text(np.arange(begin, begin + len(found)), n) if 0 <= begin <= n - len(found) else None
        if part is not None:
            yield part


def _fits(text: str, n: int, found: Sequence[Indices]) -> bool:
    ordered = indices(order(text, n, {}), n)
    return len(ordered) == len(found) and all(row in its for row, its in zip(ordered, found, strict=True))


def hinted(sheet: Sheet, grid: Grid, hints: Iterable[Way]) -> Way | None:
    """The first of the ways in which other layers keep the module that this one agrees with."""
    return next((way for way in hints if keeps(sheet, grid, way)), None)
