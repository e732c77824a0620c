"""A planned tensor's bytes, a block of rows at a time, so that memory is bounded whatever the model's size.

Merging is done in float64 and rounded once, so that neither block size nor BLAS threads change a byte.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from math import sqrt
from typing import Final, NamedTuple

import numpy as np

from converter.dtypes import F32, F64, GGML_BY_NAME
from converter.errors import ConverterError, RuleBroken
from converter.evaluation.compiled import NOTHING, Compiled
from converter.evaluation.encode import Numbers, Quantiser, Weights, decode, encode, libggml
from converter.evaluation.finite import refuse_non_finite
from converter.evaluation.importance import importance_of
from converter.evaluation.matrices import BLOCK_N_ELEMENTS, Pair, Terms, is_sum_of_two, matrix_rows, ranges, terms
from converter.evaluation.rounded_sum import TYPES, Merging, Quantising, Sums
from converter.evaluation.rows import Doubles, as_stored, doubles, is_stored_as, stored_values
from converter.planning.conversion_plan import PlannedTensor
from converter.read.files import read_bytes
from converter.read.stored import StoredTensor
from converter.sources import CopiedBytes, Merged, Placed, Rows, Stacked, WideEmbedding
from converter.values.rows import Array

_AT_ONCE: Final = 4  # blocks, where they are computed in parts by themselves; larger ones are fresh memory every time
_COPY_NBYTES: Final = 1 << 20  # stays in a core's cache while it is looked through


@dataclass(slots=True)
class DeltaKept:
    """How much of a delta survives the rounding of W + D: 1 + <rounding error, D> / ||D||^2.

    The plain norm of the error would not tell: it is large beside a small delta even where the delta's mean effect
    is all there. ``noise`` is the error's own size beside ||D||.
    """

    tensor: str
    norm2: float = 0.0
    error_dot_delta: float = 0.0
    error_norm2: float = 0.0

    def add(self, sums: Sums) -> None:
        """Account for one block."""
        self.norm2 += sums.norm2
        self.error_dot_delta += sums.error_dot_delta
        self.error_norm2 += sums.error_norm2

    @property
    def share(self) -> float | None:
        """1 where everything is kept, 0 where the rounding undid the delta; None where there is none to see."""
        return 1.0 + self.error_dot_delta / self.norm2 if self.norm2 else None

    @property
    def noise(self) -> float | None:
        """||rounding error|| / ||D||."""
        return sqrt(self.error_norm2 / self.norm2) if self.norm2 else None


class Block(NamedTuple):
    """Bytes of a tensor, and the sums of the delta that is in them."""

    data: bytes | memoryview
    sums: Sums = Sums()

    @classmethod
    def of(cls, values: Array, sums: Sums = Sums()) -> "Block":  # noqa: B008  immutable
        """Numbers in their type."""
        # BF16 has no buffer protocol of its own, bytes have.
        return cls(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, sums)


Task = Callable[[], Block]


class _How(NamedTuple):
    """How numbers are quantised: by an imatrix, or by what is faster than libggml."""

    weights: Weights | None = None
    quantising: Quantising | None = None

    @classmethod
    def of(cls, tensor: PlannedTensor, fast: Compiled) -> "_How":
        """A tensor's."""
        importance = tensor.quantised and tensor.quantised.importance
        if importance:
            return cls(importance_of(importance))
        return cls(None, fast.quantising.get(tensor.type.name))

    @property
    def quantiser(self) -> Quantiser | None:
        return self.quantising and self.quantising.blocks


def _is_merged(tensor: PlannedTensor, fast: Compiled) -> bool:
    """Whether a Merging can merge it."""
    return fast.merging is not None and is_sum_of_two(tensor.source) and not _is_rounded_twice(tensor)


def _is_rounded_twice(tensor: PlannedTensor) -> bool:
    """To F32 and to a float type, as llama-quantize finds and leaves it."""
    return tensor.quantised is not None and tensor.type.is_float


def tasks(tensor: PlannedTensor, n_elements: int = BLOCK_N_ELEMENTS, fast: Compiled = NOTHING) -> Iterator[Task]:
    """Yield what makes each block, in the order of the blocks. Tasks may run at the same time, in any order.

    One raises ConverterError where a source can't be read, or a value is too large for the tensor's type.
    """
    match tensor.source:
        case CopiedBytes(_, stored):
            yield from _copies(stored, tensor.name)
        case Stacked(parts):
            for i, part in enumerate(parts):
                quantised = tensor.quantised and tensor.quantised.of_matrix(i, len(parts))
                matrix = tensor._replace(shape=tensor.shape[1:], source=part, quantised=quantised)
                yield from tasks(matrix, n_elements, fast)
        case Merged() | Placed() | WideEmbedding() as source:
            how = _How.of(tensor, fast)
            is_in_parts = _is_merged(tensor, fast) and (tensor.type.is_float or how.quantising is not None)
            make = _computed(tensor, source, n_elements, fast)
            yield from _each(make, tensor, n_elements, is_in_parts=is_in_parts)
        case source if tensor.quantised or not tensor.type.is_float:
            how = _How.of(tensor, fast)
            make = partial(_quantised, tensor, source, how)
            yield from _each(make, tensor, n_elements, is_in_parts=how.quantising is not None)
        case source if is_stored_as(source, tensor.type.name):
            yield from _each(partial(_stored, tensor, source), tensor, n_elements)
        case source:
            yield from _each(partial(_converted, tensor, source, fast.merging), tensor, n_elements)


def _each(
    make: Callable[[int, int], Block], tensor: PlannedTensor, n_elements: int, *, is_in_parts: bool = False
) -> Iterator[Task]:
    """More at once, where a kernel goes through a block in parts that stay in a core's cache."""
    for block in ranges(tensor.shape, _AT_ONCE * n_elements if is_in_parts else n_elements):
        yield partial(make, *block)


def blocks(tensor: PlannedTensor, kept: DeltaKept, n_elements: int = BLOCK_N_ELEMENTS) -> Iterator[bytes | memoryview]:
    """Yield the tensor's bytes in order; for a merged tensor ``kept`` is filled on the way. Raises as tasks do."""
    for task in tasks(tensor, n_elements):
        block = task()
        kept.add(block.sums)
        yield block.data


def _copies(stored: StoredTensor, name: str) -> Iterator[Task]:
    ggml_type = GGML_BY_NAME[stored.dtype]
    step = _COPY_NBYTES // ggml_type.type_size * ggml_type.type_size

    def copy(begin: int) -> Block:
        chunk = read_bytes(stored.path, stored.offset + begin, min(step, stored.nbytes - begin))
        refuse_non_finite(chunk, ggml_type, name, of_base=True)
        return Block(chunk)

    yield from (partial(copy, begin) for begin in range(0, stored.nbytes, step))


def _stored(tensor: PlannedTensor, source: Rows, begin: int, end: int) -> Block:
    block = Block.of(stored_values(source, begin, end))
    refuse_non_finite(block.data, tensor.type, tensor.name)
    return block


def _quantised(tensor: PlannedTensor, source: Rows, how: _How, begin: int, end: int) -> Block:
    stored = as_stored(source, begin, end)
    found = how.quantising and how.quantising.rows(stored, tensor.type, libggml(tensor.type))
    if found:
        return Block.of(found.values)
    # Whatever they are stored as, float64 between would change nothing.
    values = stored.astype(np.float32)
    return Block.of(_encoded(values, values, tensor, how))


def _converted(tensor: PlannedTensor, source: Rows, merging: Merging | None, begin: int, end: int) -> Block:
    if merging and tensor.type.name in TYPES:
        stored = as_stored(source, begin, end)
        found = merging.rounded_sum(stored, _nothing(stored.shape), 1.0, tensor.type)
        if found:
            return Block.of(found.values)
    values = doubles(source, begin, end)
    return Block.of(_encoded(values, values, tensor, _How()))


@lru_cache(maxsize=2)
def _nothing(shape: tuple[int, ...]) -> Doubles:
    """What leaves every number as it is if added to it: 0 would make 0 of -0."""
    return np.full(shape, -0.0)


def _computed(
    tensor: PlannedTensor, source: Merged | Placed | WideEmbedding, n_elements: int, fast: Compiled
) -> Callable[[int, int], Block]:
    rows, how = matrix_rows(source, n_elements, F32 if tensor.quantised else tensor.type), _How.of(tensor, fast)
    merging = fast.merging
    if not (merging and _is_merged(tensor, fast) and isinstance(source, Merged)):
        return lambda begin, end: _rounded(tensor, rows(begin, end), how)
    of_rows = terms(source)

    def in_one_pass(begin: int, end: int) -> Block:
        found = _in_one_pass(tensor, of_rows(begin, end), merging, how)
        return _rounded(tensor, rows(begin, end), how) if found is None else found

    return in_one_pass


def _in_one_pass(tensor: PlannedTensor, of: Terms, merging: Merging, how: _How) -> Block | None:
    """None where a number may have to be refused: the plain way says why."""
    if tensor.type.is_float:
        merged = merging.merged(*of, tensor.type)
        return merged and Block.of(*merged)
    if how.quantising:
        quantised = how.quantising.merged(*of, tensor.type, libggml(tensor.type))
        if quantised:
            return Block.of(*quantised)
    product = of.left @ of.right
    found = merging.rounded_sum(of.base, product, of.scaling, F32)
    if found is None:
        return None
    try:
        encoded = encode(found.values, tensor.type, tensor.name, how.weights, how.quantiser)
    except RuleBroken:
        return None
    return Block.of(encoded, merging.sums_of(of.base, product, of.scaling, decode(encoded, tensor.type)))


def _rounded(tensor: PlannedTensor, rows: Pair, how: _How) -> Block:
    served, base = rows
    encoded = _encoded(served, base, tensor, how)
    if base is served:
        return Block.of(encoded)
    error = np.subtract(decode(encoded, tensor.type), served, dtype=np.float64)
    return Block.of(encoded, Sums.of(error, np.subtract(served, base, out=base)))


def _encoded(served: Numbers, base: Numbers, tensor: PlannedTensor, how: _How) -> Array:
    values = served.astype(np.float32, copy=False) if tensor.quantised else served
    try:
        encoded = encode(values, tensor.type, tensor.name, how.weights, how.quantiser)
    except ConverterError:
        # Then it's no fault of the adapter's.
        refuse_non_finite(Block.of(base.astype(np.float64, copy=False)).data, F64, tensor.name)
        raise
    refuse_non_finite(Block.of(encoded).data, tensor.type, tensor.name)
    return encoded
