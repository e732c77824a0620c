"""What a conversion will write: every output tensor's name, type, shape and source, and the ledger of the adapter.

A plan is plain data. ``--dry-run`` prints it, tests compare it, and the same plan gives the same bytes.
"""

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Final, Literal

from converter.diagnostics import Deployment
from converter.dtypes import GgmlType
from converter.read.gguf_header import DEFAULT_ALIGNMENT, GgufArray, KeyValue
from converter.read.stored import StoredTensor
from converter.transforms import IDENTITY, Order, RowRange

# --- Sources of rows --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows of a tensor in ``order``, times ``scale``, plus ``add``. ``key`` names it in the adapter or the base.

    ``every`` takes columns begin, begin + step, ... of each row: one expert's of a lora_B that holds all experts'.
    """

    key: str
    tensor: StoredTensor
    order: Order = IDENTITY
    scale: float = 1.0
    add: float = 0.0
    every: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class StoredColumns:
    """Columns of a matrix as rows: an embedding's lora_embedding_A (r, n_rows) as llama.cpp wants it, (n_rows, r).

    Or a weight that transformers keeps transposed (GPT-2's Conv1D).
    """

    key: str
    tensor: StoredTensor


@dataclass(frozen=True, slots=True)
class Zeros:
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


@dataclass(frozen=True, slots=True)
class Filled:
    """A vector or matrix of one value."""

    shape: tuple[int, ...]
    value: float


@dataclass(frozen=True, slots=True)
class Given:
    """A small matrix that was computed for the plan: float64 values, row by row."""

    shape: tuple[int, int]
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, rows: Iterable[Iterable[float]]) -> "Given":
        """The matrix of these rows."""
        table = [array("d", row) for row in rows]
        return cls((len(table), len(table[0])), b"".join(row.tobytes() for row in table))

    def rows(self) -> list[list[float]]:
        """The matrix as numbers."""
        values = array("d", self.data).tolist()
        return [values[begin : begin + self.shape[1]] for begin in range(0, len(values), self.shape[1])]


Rows = StoredRows | StoredColumns | Zeros | JoinedRows | JoinedColumns | Filled | Given

# --- Sources that are computed ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delta:
    """scaling * left @ right, in float64: left (n_rows, r), right (r, n_columns); scaling * left without ``right``."""

    left: Rows
    right: Rows | None
    scaling: float


@dataclass(frozen=True, slots=True)
class Magnitude:
    """DoRA: each row (or column) v of the merged weight becomes v / ||v|| times its magnitude.

    Of a linear module PEFT keeps one magnitude a row, of an embedding one a column: peft/tuners/lora/dora.py.
    """

    values: Rows
    of: Literal["rows", "columns"]


@dataclass(frozen=True, slots=True)
class ReplacedRows:
    """Rows ``indices`` of the result are those of a tensor, in its order (trainable_token_indices)."""

    rows: StoredRows
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Merged:
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


@dataclass(frozen=True, slots=True)
class Product:
    """left @ diag(columns) @ matrix, of which ``left`` has few rows."""

    left: Given
    columns: "Merged | Rows | None"
    matrix: "Merged | Rows"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a matrix, times ``factor``, and the place (row, column) of its first element in the whole.

    ``rows`` and ``columns`` (begin, end) say which part; a vector is one column.
    """

    matrix: Merged | Rows | Product
    at: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Placed:
    """Pieces laid out in a matrix of zeros, or in a vector."""

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


WIDE_TAIL: Final = 32  # columns behind the head's own part: a block of Q8_0


@dataclass(frozen=True, slots=True)
class WideEmbedding:
    """An embedding whose rows go on: [factor * E, B @ mixing, 0, then constant, filler, |factor * E| and zeros].

    B are the left sides of ``head``, times their scalings. The filler gives every row the squared norm ``norm2``; why
    is told in plan/rehost/wide.py.
    """

    shape: tuple[int, int]
    embedding: Merged | Rows
    head: tuple[Delta, ...]
    mixing: Given
    factor: float
    constant: float
    norm2: float


@dataclass(frozen=True, slots=True)
class CopiedBytes:
    """A tensor of the base, byte for byte."""

    key: str
    tensor: StoredTensor


Source = CopiedBytes | Rows | Merged | Stacked | Placed | WideEmbedding

# --- The plan ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One output tensor; ``shape`` is row-major."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    source: Source

    @property
    def nbytes(self) -> int:
        """Size in the file, padding aside."""
        return self.type.nbytes(self.shape)


@dataclass(frozen=True, slots=True)
class CopiedKeyValue:
    """A metadata entry of the base, byte for byte."""

    path: Path
    entry: KeyValue

    @property
    def key(self) -> str:
        """The entry's key."""
        return self.entry.key


@dataclass(frozen=True, slots=True)
class EditedArray:
    """An array of the base's metadata with ``n`` elements, those of ``changes`` (index, value) other than the base's.

    Where it is longer than the base's, ``changes`` has every element behind that.
    """

    path: Path
    key: str
    array: GgufArray
    n: int
    changes: tuple[tuple[int, str | int | float], ...]


@dataclass(frozen=True, slots=True)
class NewKeyValue:
    """A metadata entry of ours: a string, a bool, a uint32, a float32, or an array of bools or uint32."""

    key: str
    value: str | int | float | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NewArray:
    """A vocabulary's array, whose elements are of a type of GGUF's (STRING, INT32, FLOAT32)."""

    key: str
    element_type: int
    values: tuple[str | int | float, ...]


PlannedKeyValue = CopiedKeyValue | EditedArray | NewKeyValue | NewArray


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One GGUF to write. ``name`` is fixed where the output is a directory, else empty."""

    tensors: tuple[PlannedTensor, ...]
    key_values: tuple[PlannedKeyValue, ...]
    alignment: int = DEFAULT_ALIGNMENT
    name: str = ""

    @property
    def nbytes(self) -> int:
        """Size of the tensor data, padding included."""
        return sum(-(-tensor.nbytes // self.alignment) * self.alignment for tensor in self.tensors)


Fate = Literal["applied", "folded", "redundant"]


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """What became of one tensor key (``kind`` tensor) or config field (``kind`` config) of the adapter."""

    kind: Literal["tensor", "config"]
    key: str
    fate: Fate
    how: str


@dataclass(frozen=True, slots=True)
class ConversionPlan:
    """Everything a conversion will write, and the line of the ledger for every part of the adapter."""

    deployment: Deployment
    architecture: str
    files: tuple[PlannedFile, ...]
    ledger: tuple[LedgerLine, ...]
    notes: tuple[str, ...] = field(default=())

    @property
    def nbytes(self) -> int:
        """Bytes of tensor data over all files."""
        return sum(file.nbytes for file in self.files)

    def digest(self) -> str:
        """SHA-256 of the plan as canonical JSON."""
        return sha256(json.dumps(self.as_data(), sort_keys=True).encode()).hexdigest()

    def as_data(self) -> dict[str, object]:
        """The plan for JSON: no paths, so that it is the same on every machine."""
        from converter.plan.plan_data import file_data

        return {
            "deployment": self.deployment.options,
            "architecture": self.architecture,
            "files": [file_data(file) for file in self.files],
            "ledger": [{"kind": x.kind, "key": x.key, "fate": x.fate, "how": x.how} for x in self.ledger],
            "notes": list(self.notes),
        }


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
        case Placed(pieces=pieces):
            for piece in pieces:
                yield from _piece_keys(piece)
        case WideEmbedding(embedding=embedding, head=head):
            yield from keys_of(embedding)
            yield from _delta_keys(head)
        case _:
            yield source.key


def _piece_keys(piece: Piece) -> Iterator[str]:
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
        case _:
            return


def shape_of(rows: Rows) -> tuple[int, ...]:
    """(n_rows, n_columns) of a matrix, (n_rows,) of a vector."""
    match rows:
        case Zeros(shape) | Filled(shape) | Given(shape):
            return shape
        case StoredColumns(_, tensor):
            return tensor.shape[::-1]
        case JoinedRows(parts):
            shapes = list(map(shape_of, parts))
            return (sum(shape[0] for shape in shapes), *shapes[0][1:])
        case JoinedColumns(parts):
            shapes = list(map(shape_of, parts))
            return shapes[0][0], sum(shape[1] for shape in shapes)
        case StoredRows(_, tensor, order, every=every):
            n_rows = order.n_rows if isinstance(order, RowRange) else tensor.shape[0]
            columns = (len(range(every[0], tensor.shape[1], every[1])),) if every else tensor.shape[1:]
            return (n_rows, *columns)


def has_delta(source: Source | Product) -> bool:
    """Whether something is merged in a source, so that it can be measured what rounding keeps of it."""
    match source:
        case Merged() | Stacked() | WideEmbedding():
            return True
        case Placed(pieces=pieces):
            return any(has_delta(piece.matrix) for piece in pieces)
        case Product(matrix=matrix):
            return has_delta(matrix)
        case _:
            return False


def n_elements(tensor: PlannedTensor) -> int:
    """How many elements an output tensor has."""
    return prod(tensor.shape)
