"""Where the rows and columns of each tensor go in a host, and what they are multiplied by.

A LoRA moves with its weight: lora_b with the rows (factor included), lora_a with the columns. An embedding's lora_a has
its rows, and lora_b its columns.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import frexp

from converter.dtypes import F32, GgmlType
from converter.planning.conversion_plan import PlannedFile, PlannedTensor
from converter.planning.outtypes import merged_type
from converter.sources import CopiedBytes, Merged, Piece, Placed, Rows, Stacked, StoredRows, WideEmbedding


@dataclass(frozen=True, slots=True)
class Axis:
    """Rows or columns of the host's matrix, ``n`` of them: moves (begin, n, to) say which come from where; rest 0."""

    n: int
    moves: tuple[tuple[int, int, int], ...]

    @property
    def is_identity(self) -> bool:
        """Whether all stays where it is."""
        return self.moves == ((0, self.n, 0),)


def padded(n: int, to: int) -> Axis:
    """``n`` rows or columns, then zeros."""
    return Axis(to, ((0, n, 0),))


@dataclass(frozen=True, slots=True)
class Layout:
    """What becomes of a tensor: its name in the host where it has another, its axes where they change, its factor."""

    name: str | None = None
    rows: Axis | None = None
    columns: Axis | None = None
    factor: float = 1.0

    def of_lora_a(self, stem: str) -> "Layout":
        """What becomes of the factor that is multiplied by the input; an embedding's has the embedding's rows."""
        return Layout(rows=self.rows) if stem == "token_embd" else Layout(columns=self.columns)

    def of_lora_b(self, stem: str) -> "Layout":
        """What becomes of the factor that makes the output."""
        return Layout(rows=self.columns if stem == "token_embd" else self.rows, factor=self.factor)


UNCHANGED = Layout()


@dataclass(frozen=True, slots=True)
class TensorName:
    """A GGUF tensor's name in parts: blk.3.attn_q.weight.lora_a is layer 3, stem attn_q, weight.lora_a."""

    layer: int | None
    stem: str
    parameter: str

    def __str__(self) -> str:
        start = "" if self.layer is None else f"blk.{self.layer}."
        return f"{start}{self.stem}.{self.parameter}"


def named(name: str) -> TensorName:
    """The parts of a GGUF tensor's name."""
    if name.startswith("blk."):
        _, layer, stem, parameter = name.split(".", 3)
        return TensorName(int(layer), stem, parameter)
    stem, parameter = name.split(".", 1)
    return TensorName(None, stem, parameter)


def relaid_tensors(
    file: PlannedFile, layouts: Mapping[str, Layout], outtype: str | None, *, first_layer: int = 0
) -> Iterator[PlannedTensor]:
    """Every tensor of a model or a LoRA in the host's layout; layer 0 becomes ``first_layer``."""
    for tensor in file.tensors:
        name = named(tensor.name)
        layout = layouts.get(name.stem, UNCHANGED)
        layer = None if name.layer is None else name.layer + first_layer
        hosted = str(TensorName(layer, layout.name or name.stem, name.parameter))
        yield relaid(tensor, _part(layout, name), outtype)._replace(name=hosted)


def _part(layout: Layout, name: TensorName) -> Layout:
    if name.parameter.endswith(".lora_a"):
        return layout.of_lora_a(name.stem)
    if name.parameter.endswith(".lora_b"):
        return layout.of_lora_b(name.stem)
    return layout


def relaid(tensor: PlannedTensor, layout: Layout, outtype: str | None) -> PlannedTensor:
    """A tensor in its layout: a plain copy where nothing changes. A norm or a bias has rows alone."""
    n_rows, n_columns = _as_matrix(tensor.shape)
    rows, columns = layout.rows or padded(n_rows, n_rows), padded(n_columns, n_columns)
    if len(tensor.shape) > 1:
        columns = layout.columns or columns
    if rows.is_identity and columns.is_identity and layout.factor == 1.0:
        return tensor
    shape = (rows.n, columns.n) if len(tensor.shape) > 1 else (rows.n,)
    pieces = tuple(
        Piece(matrix_of(tensor), (to_row, to_column), (row, row + height), (column, column + width), layout.factor)
        for row, height, to_row in rows.moves
        for column, width, to_column in columns.moves
    )
    return PlannedTensor(tensor.name, shape, _type(tensor, layout, outtype, shape), Placed(shape, pieces))


def _as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return shape[0], shape[1] if len(shape) > 1 else 1


def matrix_of(tensor: PlannedTensor) -> Merged | Rows:
    """A planned matrix or vector as numbers, whether it is copied or merged."""
    match tensor.source:
        case CopiedBytes(key, stored):
            return StoredRows(key, stored)
        case Stacked() | Placed() | WideEmbedding():
            raise AssertionError(tensor.name)  # Gemma has no experts, and is hosted once
        case source:
            return source


def _type(tensor: PlannedTensor, layout: Layout, outtype: str | None, shape: tuple[int, ...]) -> GgmlType:
    """A float keeps its type where its values keep theirs; what is rounded anew gets the type that merging gives."""
    if len(shape) == 1:
        return F32
    is_lora = named(tensor.name).parameter.startswith("weight.lora")
    if is_lora:
        return tensor.type if layout.factor == 1.0 else F32
    keeps_values = tensor.type.is_float and frexp(layout.factor)[0] == 0.5  # a power of two
    touched = not isinstance(tensor.source, CopiedBytes)
    if (touched or keeps_values) and tensor.type.fits(shape[1]):
        return tensor.type
    return merged_type(None if touched else outtype, tensor.type.name, tensor.name, shape[1])
