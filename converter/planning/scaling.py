"""Weights that GGUF has times numbers of the config (Falcon-H1's multipliers): the base's own, and merged ones.

llama.cpp's converter multiplies float32 by one number after the other, which a tensor that the adapter leaves alone has
bit for bit. Merged weights are multiplied in float64, and rounded once.
"""

from collections.abc import Iterator
from math import prod

from converter.derive.base_model import Section
from converter.sources import JoinedRows, Merged, Piece, Placed, Rows, Scaled, StoredRows


def as_llama_cpp_scales(rows: Rows, sections: tuple[Section, ...]) -> Rows:
    """Rows of the base, each section times its numbers."""
    if not sections or not isinstance(rows, StoredRows):
        return rows
    if len(sections) == 1:
        return Scaled(rows, sections[0].factors)
    parts = ((begin, section) for begin, section in _with_begins(sections))
    return JoinedRows(
        tuple(Scaled(rows._replace(tensor=rows.tensor.part(begin, it.n_rows)), it.factors) for begin, it in parts)
    )


def unscaled(rows: Rows) -> Rows:
    """The rows behind ``as_llama_cpp_scales``."""
    match rows:
        case Scaled(of):
            return of
        case JoinedRows(parts):
            return JoinedRows(tuple(map(unscaled, parts)))
        case _:
            return rows


def scaled(matrix: Merged | Rows, shape: tuple[int, ...], sections: tuple[Section, ...]) -> Placed:
    """A matrix of this ``shape``, each section of its rows times its numbers in float64."""
    n_columns = shape[1] if len(shape) > 1 else 1
    if len(sections) == 1:  # of an end it may have more rows than the base
        sections = (sections[0]._replace(n_rows=shape[0]),)
    pieces = tuple(
        Piece(matrix, (begin, 0), (begin, begin + it.n_rows), (0, n_columns), prod(it.factors))
        for begin, it in _with_begins(sections)
    )
    return Placed(shape, pieces)


def _with_begins(sections: tuple[Section, ...]) -> Iterator[tuple[int, Section]]:
    begin = 0
    for section in sections:
        yield begin, section
        begin += section.n_rows
