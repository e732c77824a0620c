"""Which rows of a checkpoint's matrix each row of a GGUF's may have been rounded from: mostly one, of twins several."""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final

import numpy as np

from converter.matching.grids import Cells, Floats, Grid, Sheet, blocks, rounded
from converter.values.orders import Indices

_FIRST: Final = 8  # columns that all pairs of rows are compared in
_NEXT: Final = 16  # columns at a time that the pairs which are left are compared in
_PAIRS: Final = 1 << 19  # pairs of rows at a time
MOST_PAIRS: Final = 1 << 31  # rows of a matrix times those of another: half a minute


def candidates(sheet: Sheet, grid: Grid, rows: Sequence[int]) -> list[Indices]:
    """For each of the GGUF's ``rows`` those of the checkpoint that it may be, in order."""
    if grid.is_float:
        return _equal(sheet, grid, rows)
    return [its for own in _cells(grid, rows) for its in _near(sheet, own)]


def _cells(grid: Grid, rows: Sequence[int]) -> Iterator[Cells]:
    """The numbers of the rows, as many at a time as are compared at a time."""
    if isinstance(rows, range):
        yield from (grid.rows(begin, end) for begin, end in blocks(len(rows), grid.shape[1]))
    else:
        yield from (grid.rows(row, row + 1) for row in rows)


def _equal(sheet: Sheet, grid: Grid, rows: Sequence[int]) -> list[Indices]:
    """By a digest of each row: of float types both are the same numbers."""
    digests = [digest for own in _cells(grid, rows) for digest in _digests(own.values)]
    wanted: dict[bytes, list[int]] = {digest: [] for digest in digests}
    for begin, end in blocks(*sheet.shape):
        for row, digest in enumerate(_digests(rounded(sheet.rows(begin, end), grid.dtype)), begin):
            found = wanted.get(digest)
            if found is not None:
                found.append(row)
    return [np.array(wanted[digest], np.int64) for digest in digests]


def _digests(values: Floats) -> list[bytes]:
    # 0.0 and -0.0 are one number.
    return [blake2b((row + np.float32(0)).tobytes(), digest_size=16).digest() for row in values]


def _near(sheet: Sheet, cells: Cells) -> list[Indices]:
    found: list[list[Indices]] = [[] for _ in cells.values]
    for begin, end in blocks(*sheet.shape):
        wanted = sheet.rows(begin, end)
        step = max(1, _PAIRS // (end - begin))
        for first in range(0, len(cells.values), step):
            own = cells.take((slice(first, first + step),))
            for row, its in _pairs(own, wanted):
                found[first + row].append(its + begin)
    return [np.concatenate(its) if its else np.zeros(0, np.int64) for its in found]


def _pairs(cells: Cells, wanted: Floats) -> Iterator[tuple[int, Indices]]:
    """Each row of ``cells``, and the rows of ``wanted`` that agree with it."""
    n_columns = wanted.shape[1]
    # Far apart: neighbours are alike where a model was trained little.
    columns = np.random.default_rng(0).permutation(n_columns)
    may_be = np.ones((len(cells.values), len(wanted)), bool)
    for column in columns[:_FIRST]:
        may_be &= cells.take((slice(None), slice(column, column + 1))).agree(wanted[:, column][None, :])
    ours, theirs = np.nonzero(may_be)
    for begin in range(_FIRST, n_columns, _NEXT):
        if not len(ours):
            return
        chosen = columns[begin : begin + _NEXT]
        agree = cells.take((ours[:, None], chosen)).agree(wanted[theirs[:, None], chosen]).all(axis=1)
        ours, theirs = ours[agree], theirs[agree]
    for row in np.unique(ours):
        yield int(row), theirs[ours == row].astype(np.int64)
