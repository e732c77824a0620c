"""All types of quantised files side by side, before one is written: size, and what each keeps of the adapter.

Every matrix that the adapter touches is merged once, in rows spread over it, and those are quantised in every type.
"""

from collections.abc import Callable, Iterator
from math import sqrt
from typing import Final

import numpy as np  # noqa: TID253  the one who asks has asked for numbers

from converter.dtypes import F32, GgmlType
from converter.errors import ConverterError
from converter.evaluation.compiled import compiled
from converter.evaluation.encode import Weights, decode, encode
from converter.evaluation.importance import importance_of
from converter.evaluation.matrices import Pair, matrix_rows
from converter.evaluation.rounded_sum import Sums
from converter.planning.conversion_plan import ConversionPlan, PlannedTensor
from converter.planning.file_types import FILE_TYPES
from converter.planning.quantised import quantised
from converter.planning.type_comparison import TensorKept, TypeCompared
from converter.sources import Merged, Placed, Stacked, WideEmbedding, has_delta
from converter.writing.gguf_file import gguf_nbytes
from converter.writing.one_blas_thread import one_blas_thread

SAMPLED: Final = 1 << 17  # numbers of a tensor that are looked at
_N_PLACES: Final = 8  # over which they are spread

Measured = dict[tuple[str, GgmlType], Sums]
Progress = Callable[[int, int], None]


def compare_types(plan: ConversionPlan, progress: Progress = lambda *_: None) -> tuple[TypeCompared, ...]:
    """Compare every file type for a plan that is quantised in any of them, with its options.

    ``progress`` gets how many tensors are done, and how many there are. Raises ConverterError where a number can't be
    read, or the adapter touches no matrix that is quantised.
    """
    if plan.deployment.quantize is None:
        raise ConverterError("types are compared of a plan that is quantised")
    asked = plan.deployment.quantize
    files = {name: quantised(plan.files[0], asked._replace(file_type=name)) for name in FILE_TYPES}
    tensors = {
        name: {t.name: t for t in file.tensors if has_delta(t.source) and t.quantised} for name, file in files.items()
    }
    touched = next(iter(tensors.values()))
    if not touched:
        raise ConverterError("the adapter touches no matrix that is quantised: every type keeps all of it")
    measured: Measured = {}
    with one_blas_thread(), np.errstate(all="ignore"):
        for done, (name, tensor) in enumerate(touched.items()):
            progress(done, len(touched))
            types = list(dict.fromkeys(of[name].type for of in tensors.values()))
            measured |= {(name, to): sums for to, sums in _sums(tensor, types).items()}
    return tuple(
        _compared(name, gguf_nbytes(file), tuple(tensors[name].values()), measured) for name, file in files.items()
    )


def _compared(name: str, nbytes: int, tensors: tuple[PlannedTensor, ...], measured: Measured) -> TypeCompared:
    each = [(tensor, measured[tensor.name, tensor.type]) for tensor in tensors]
    kept = tuple(TensorKept(t.name, t.type.name, *_share_and_noise(sums)) for t, sums in each if sums.norm2)
    if not kept:
        raise ConverterError("every delta is zero: there is nothing to keep")
    total = Sums(*map(sum, zip(*(sums for _, sums in each), strict=True)))
    return TypeCompared(name, nbytes, *_share_and_noise(total), kept)


def _share_and_noise(sums: Sums) -> tuple[float, float]:
    return 1.0 + sums.error_dot_delta / sums.norm2, sqrt(sums.error_norm2 / sums.norm2)


def _sums(tensor: PlannedTensor, types: list[GgmlType]) -> dict[GgmlType, Sums]:
    """The sums of each type over the sampled rows, as if over all rows."""
    found = {to: np.zeros(3) for to in types}
    quantising, n_sampled = compiled().quantising, 0
    for (served, base), weights in _sampled(tensor):
        n_sampled += served.size
        values, delta = served.astype(np.float32), served - base
        for to in types:
            fast = quantising.get(to.name)
            error = decode(encode(values, to, tensor.name, weights, fast and fast.blocks), to) - served
            found[to] += Sums.of(error, delta)
    n = float(np.prod(tensor.shape, dtype=np.float64))
    return {to: Sums(*map(float, sums * (n / n_sampled))) for to, sums in found.items()}


def _sampled(tensor: PlannedTensor) -> Iterator[tuple[Pair, Weights | None]]:
    match tensor.source:
        case Stacked(parts):
            touched = [i for i, part in enumerate(parts) if has_delta(part)]
            for i in touched:
                of = tensor.quantised and tensor.quantised.of_matrix(i, len(parts))
                yield from _rows(tensor._replace(shape=tensor.shape[1:], source=parts[i], quantised=of), len(touched))
        case _:
            yield from _rows(tensor, 1)


def _rows(tensor: PlannedTensor, n_matrices: int) -> Iterator[tuple[Pair, Weights | None]]:
    """Rows of one of so many matrices, in a few places evenly apart."""
    if not isinstance(tensor.source, Merged | Placed | WideEmbedding):
        return
    importance = tensor.quantised and tensor.quantised.importance
    weights = importance_of(importance) if importance else None
    rows, (n_rows, width) = matrix_rows(tensor.source, SAMPLED, F32), tensor.shape
    n_each = max(1, SAMPLED // (width * _N_PLACES * n_matrices))
    for begin in np.unique(np.linspace(0, max(0, n_rows - n_each), min(_N_PLACES, n_rows), dtype=np.int64)):
        yield rows(int(begin), min(int(begin) + n_each, n_rows)), weights
