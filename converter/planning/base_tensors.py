"""The base's tensors as a GGUF wants them, whatever it is made from: names, shapes, types, and where the rows are.

A GGUF base has them so already. Of a Hugging Face checkpoint rows are put in order, norms get Gemma's + 1, Conv1D is
turned round and experts are stacked. Matrices keep their type, and where nothing moves their bytes; vectors are F32.
"""

from collections.abc import Iterator
from typing import NamedTuple

from converter.architectures import Place
from converter.derive.base_model import BaseModel
from converter.derive.checkpoint_parts import Part, parts_of
from converter.dtypes import F16, F32, GGML_BY_NAME, GgmlType
from converter.orders import Orders
from converter.planning.conversion_plan import PlannedTensor
from converter.planning.rope import rope_factors
from converter.planning.scaling import as_llama_cpp_scales
from converter.read.stored import StoredTensor
from converter.sources import (
    CopiedBytes,
    Filled,
    NegativeExp,
    Rows,
    Scaled,
    Stacked,
    StoredColumns,
    StoredRows,
    shape_of,
)


class BaseTensor(NamedTuple):
    """``matrices`` are the tensor, or each expert of a three-dimensional one; ``copy`` is the tensor byte for byte.

    ``type`` is that of the tensor where nothing changes it.
    """

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    matrices: tuple[Rows, ...]
    copy: CopiedBytes | None

    def planned(self, name: str) -> PlannedTensor:
        """The tensor as it is, under ``name``."""
        source = self.copy or (Stacked(self.matrices) if len(self.shape) > 2 else self.matrices[0])
        return PlannedTensor(name, self.shape, self.type, source)

    def first_rows(self, n: int) -> "BaseTensor":
        """A matrix of at most ``n`` rows; a row is a whole number of blocks."""
        shape = (min(n, self.shape[0]), *self.shape[1:])
        matrices = tuple(cut for matrix in self.matrices for cut in _cut_rows(matrix, n))
        copy = self.copy._replace(tensor=_cut(self.copy.tensor, n)) if self.copy else None
        return self._replace(shape=shape, matrices=matrices, copy=copy)


def _cut_rows(rows: Rows, n: int) -> Iterator[Rows]:
    if isinstance(rows, StoredRows):
        yield rows._replace(tensor=_cut(rows.tensor, n))
    elif isinstance(rows, Scaled):
        yield rows._replace(of=rows.of._replace(tensor=_cut(rows.of.tensor, n)))


def _cut(tensor: StoredTensor, n: int) -> StoredTensor:
    n_rows = min(n, tensor.shape[0])
    return tensor._replace(shape=(n_rows, *tensor.shape[1:]), nbytes=tensor.nbytes // tensor.shape[0] * n_rows)


def base_tensors(base: BaseModel) -> Iterator[BaseTensor]:
    """The tensors of a base, in its own order."""
    if base.format == "gguf":
        return _gguf_tensors(base)
    return _huggingface_tensors(base)


def _gguf_tensors(base: BaseModel) -> Iterator[BaseTensor]:
    for shard in base.shards:
        for tensor in shard.tensors:
            data = StoredTensor(shard.path, tensor.offset, tensor.nbytes, tensor.shape, tensor.type.name)
            slabs = [data.slab(e) for e in range(data.shape[0])] if len(data.shape) == 3 else [data]
            matrices = tuple(StoredRows(tensor.name, slab) for slab in slabs)
            yield BaseTensor(tensor.name, tensor.shape, tensor.type, matrices, CopiedBytes(tensor.name, data))


def _huggingface_tensors(base: BaseModel) -> Iterator[BaseTensor]:
    for name, parts in parts_of(base).items():
        yield _huggingface_tensor(base, name, parts)
    for name, factors in rope_factors(base):
        yield BaseTensor(name, factors.shape[:1], F32, (factors,), None)
    for name, n, value in base.made(base.multiplier):
        yield BaseTensor(name, (n,), F32, (Filled((n,), value),), None)


# F64 is rounded once, FP8 fits F16 exactly.
_TYPES = {"F64": F32, "F8_E4M3": F16, "F8_E5M2": F16}


def _huggingface_tensor(base: BaseModel, name: str, parts: tuple[Part, ...]) -> BaseTensor:
    is_vector = len(parts[0].tensor.shape) == 1
    parts = tuple(part._replace(tensor=_folded(base, part)) for part in parts)
    matrices = tuple(_matrices(base, parts))
    place, tensor = parts[0].place, parts[0].tensor
    shape = shape_of(matrices[0])
    shape = (len(matrices), *shape) if len(matrices) > 1 or ".experts" in place.module else shape
    shape = (*shape, 1) if place.column else shape
    ggml_type = F32 if is_vector or place.f32 else _TYPES.get(tensor.dtype) or GGML_BY_NAME[tensor.dtype]
    moves = matrices != (StoredRows(parts[0].key, tensor),) or ggml_type.name != tensor.dtype
    return BaseTensor(name, shape, ggml_type, matrices, None if moves else CopiedBytes(parts[0].key, tensor))


def _folded(base: BaseModel, part: Part) -> StoredTensor:
    """A vector as the matrix that GGUF has of it: the same bytes."""
    if not part.place.folded or part.parameter == "bias":
        return part.tensor
    n_rows = base.dims_of(part.place.module)[part.place.folded]
    return part.tensor._replace(shape=(n_rows, part.tensor.shape[0] // n_rows))


def _matrices(base: BaseModel, parts: tuple[Part, ...]) -> Iterator[Rows]:
    """One for each expert, in their order; one alone where there are none."""
    for part in sorted(parts, key=lambda part: part.place.expert or 0):
        slabs = part.tensor.shape[0] if len(part.tensor.shape) == 3 else 0
        tensors = [part.tensor.slab(e) for e in range(slabs)] if slabs else [part.tensor]
        orders = base.orders(part.place)
        sections = base.factors(part.place) if part.parameter == "weight" else ()
        for tensor in tensors:
            rows = huggingface_rows(part.key, tensor, part.place, orders, part.parameter)
            yield as_llama_cpp_scales(rows, sections)


def huggingface_rows(key: str, tensor: StoredTensor, place: Place, orders: Orders, parameter: str) -> Rows:
    """A ``parameter`` (weight or bias) as transformers stores it, as GGUF has it."""
    if parameter == "bias":
        return StoredRows(key, tensor, orders.rows)
    if place.operation == "negative_exp":
        return NegativeExp(StoredRows(key, tensor, orders.rows))
    if len(tensor.shape) == 1:
        return StoredRows(key, tensor, orders.rows, add=place.add)
    if place.transposed:
        return StoredColumns(key, tensor)
    rows = StoredRows(key, tensor, orders.rows, add=place.add, columns=orders.columns)
    return NegativeExp(rows) if place.operation == "negative_exp" else rows
