"""Where the numbers of an output tensor come from: rows of stored tensors, and what is computed of them.

Plain data; ``evaluation/`` computes it. NamedTuples, which are defined in a ninth of a dataclass's time, where no other
record has such fields: two of different classes are equal where their fields are. The unions are closed: a ``match``
over one names every member, or hands the rest to a function that takes just these, so that mypy finds each place that
a new member is missing from.
"""

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, assert_never

from converter.orders import IDENTITY, Order
from converter.read.stored import StoredTensor


class StoredRows(NamedTuple):
    """Rows of a tensor in ``order``, times ``scale``, plus ``add``, and of each row the ``columns`` in their order.

    ``key`` names the tensor in the adapter or the base.
    """

    key: str
    tensor: StoredTensor
    order: Order = IDENTITY
    scale: float = 1.0
    add: float = 0.0
    columns: Order = IDENTITY


@dataclass(frozen=True, slots=True)
class StoredColumns:
    """Columns of a matrix as rows: an embedding's lora_embedding_A (r, n_rows) as llama.cpp wants it, (n_rows, r).

    Or a weight that transformers keeps transposed (GPT-2's Conv1D).
    """

    key: str
    tensor: StoredTensor


class NegativeExp(NamedTuple):
    """-exp(x) of each number: how fast a state decays, of what transformers keeps as its logarithm (A_log)."""

    of: StoredRows


class Scaled(NamedTuple):
    """Rows times ``factors``, one after the other, each product rounded to F16 where they are F16, else to F32.

    So does llama.cpp's converter multiply a base's weights, as torch does tensors by numbers: this has its bits.
    """

    of: StoredRows
    factors: tuple[float, ...]


class Zeros(NamedTuple):
    """Rows of zeros: the bias of a base that has none, the factor of an expert without a delta."""

    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class JoinedRows:
    """Matrices below each other."""

    parts: "tuple[Rows, ...]"


@dataclass(frozen=True, slots=True)
class JoinedColumns:
    """Matrices beside each other."""

    parts: "tuple[Rows, ...]"


class Filled(NamedTuple):
    """A vector or matrix of one value."""

    shape: tuple[int, ...]
    value: float


class Given(NamedTuple):
    """A small matrix that was computed for the plan: float64 values, row by row."""

    shape: tuple[int, int]
    data: bytes

    @classmethod
    def of(cls, rows: Iterable[Iterable[float]]) -> "Given":
        """The matrix of these rows."""
        table = [array("d", row) for row in rows]
        return cls((len(table), len(table[0])), b"".join(row.tobytes() for row in table))

    def rows(self) -> list[list[float]]:
        """The matrix as numbers."""
        values = array("d", self.data).tolist()
        return [values[begin : begin + self.shape[1]] for begin in range(0, len(values), self.shape[1])]


Rows = StoredRows | StoredColumns | NegativeExp | Scaled | Zeros | JoinedRows | JoinedColumns | Filled | Given

# --- Sources that are computed ----------------------------------------------------------------------------------------


class Delta(NamedTuple):
    """scaling * left @ right, in float64: left (n_rows, r), right (r, n_columns); scaling * left without ``right``."""

    left: Rows
    right: Rows | None
    scaling: float


class Magnitude(NamedTuple):
    """DoRA: each row (or column) v of the merged weight becomes v / ||v|| times its magnitude.

    Of a linear module PEFT keeps one magnitude a row, of an embedding one a column: peft/tuners/lora/dora.py.
    """

    values: Rows
    of: Literal["rows", "columns"]


class ReplacedRows(NamedTuple):
    """Rows ``indices`` of the result are those of a tensor, in its order (trainable_token_indices)."""

    rows: StoredRows
    indices: tuple[int, ...]


class Merged(NamedTuple):
    """base + deltas, DoRA's rescaling, then rows that replace; in float64, rounded once.

    ``base`` may have fewer rows than the result, whose last ones then are all in ``replaced`` (new tokens).
    """

    base: Rows
    deltas: tuple[Delta, ...] = ()
    magnitude: Magnitude | None = None
    replaced: tuple[ReplacedRows, ...] = ()


@dataclass(frozen=True, slots=True)
class Stacked:
    """A three-dimensional tensor, one matrix after the other: the experts of a layer."""

    parts: "tuple[Merged | Rows, ...]"


class Product(NamedTuple):
    """left @ diag(columns) @ matrix, of which ``left`` has few rows."""

    left: Given
    columns: "Merged | Rows | None"
    matrix: "Merged | Rows"


class Piece(NamedTuple):
    """A part of a matrix, times ``factor``, and the place (row, column) of its first element in the whole.

    ``rows`` and ``columns`` (begin, end) say which part; a vector is one column.
    """

    matrix: Merged | Rows | Product
    at: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]
    factor: float = 1.0


class Placed(NamedTuple):
    """Pieces laid out in a matrix of zeros, or in a vector."""

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


WIDE_TAIL: Final = 32  # columns behind the head's own part: a block of Q8_0


class WideEmbedding(NamedTuple):
    """An embedding whose rows go on: [factor * E, B @ mixing, 0, then constant, filler, |factor * E| and zeros].

    B are the left sides of ``head``, times their scalings. The filler gives every row the squared norm ``norm2``; why
    is told in planning/rehost/wide.py.
    """

    shape: tuple[int, int]
    embedding: Merged | Rows
    head: tuple[Delta, ...]
    mixing: Given
    factor: float
    constant: float
    norm2: float


class CopiedBytes(NamedTuple):
    """A tensor of the base, byte for byte."""

    key: str
    tensor: StoredTensor


Source = CopiedBytes | Rows | Merged | Stacked | Placed | WideEmbedding


def keys_of(source: Source) -> Iterator[str]:
    """The keys of every tensor a source reads."""
    match source:
        case Zeros() | Filled() | Given():
            return
        case JoinedRows(parts) | JoinedColumns(parts) | Stacked(parts):
            for part in parts:
                yield from keys_of(part)
        case Merged():
            yield from _merged_keys(source)
        case Placed():
            yield from _placed_keys(source)
        case WideEmbedding():
            yield from (*keys_of(source.embedding), *_delta_keys(source.head))
        case (
            CopiedBytes(key)
            | StoredRows(key)
            | StoredColumns(key)
            | NegativeExp(StoredRows(key))
            | Scaled(StoredRows(key))
        ):
            yield key
        case _:
            assert_never(source)


def _placed_keys(source: Placed) -> Iterator[str]:
    for piece in source.pieces:
        match piece.matrix:
            case Product(_, columns, matrix):
                yield from keys_of(columns) if columns else ()
                yield from keys_of(matrix)
            case matrix:
                yield from keys_of(matrix)


def _delta_keys(deltas: tuple[Delta, ...]) -> Iterator[str]:
    for delta in deltas:
        yield from keys_of(delta.left)
        if delta.right:
            yield from keys_of(delta.right)


def _merged_keys(source: Merged) -> Iterator[str]:
    yield from keys_of(source.base)
    yield from _delta_keys(source.deltas)
    if source.magnitude:
        yield from keys_of(source.magnitude.values)
    for replaced in source.replaced:
        yield replaced.rows.key


def stored_in(source: Source) -> Iterator[StoredRows | StoredColumns]:
    """Every stored matrix that a source takes rows of as they are, outside of deltas."""
    match source:
        case StoredRows() | StoredColumns():
            yield source
        case JoinedRows(parts) | JoinedColumns(parts) | Stacked(parts):
            for part in parts:
                yield from stored_in(part)
        case Placed(pieces=pieces):
            for piece in pieces:
                if not isinstance(piece.matrix, Product):
                    yield from stored_in(piece.matrix)
        case CopiedBytes() | Merged() | WideEmbedding() | Zeros() | Filled() | Given() | NegativeExp() | Scaled():
            return
        case _:
            assert_never(source)


def shape_of(rows: Rows) -> tuple[int, ...]:
    """(n_rows, n_columns) of a matrix, (n_rows,) of a vector."""
    match rows:
        case Zeros(shape) | Filled(shape) | Given(shape):
            return shape
        case NegativeExp(of) | Scaled(of):
            return shape_of(of)
        case StoredColumns(_, tensor):
            return tensor.shape[::-1]
        case JoinedRows(parts):
            shapes = list(map(shape_of, parts))
            return (sum(shape[0] for shape in shapes), *shapes[0][1:])
        case JoinedColumns(parts):
            shapes = list(map(shape_of, parts))
            return shapes[0][0], sum(shape[1] for shape in shapes)
        case StoredRows(_, tensor, order, columns=columns):
            n_rows, *n_columns = tensor.shape
            return (order.count(n_rows), *map(columns.count, n_columns))


def has_delta(source: Source | Product) -> bool:
    """Whether something is merged in a source, so that it can be measured what rounding keeps of it."""
    match source:
        case Merged() | WideEmbedding():
            return True
        case Stacked(parts=parts):  # of a LoRA file they are factors
            return any(map(has_delta, parts))
        case Placed(pieces=pieces):
            return any(has_delta(piece.matrix) for piece in pieces)
        case Product(matrix=matrix):
            return has_delta(matrix)
        case CopiedBytes() | StoredRows() | StoredColumns() | NegativeExp() | Scaled() | Zeros() | Filled() | Given():
            return False
        case JoinedRows() | JoinedColumns():  # of stored matrices alone
            return False
        case _:
            assert_never(source)
