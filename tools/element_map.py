"""Where llama.cpp's converter put each parameter, read from numbered elements: tensor, rows, columns, addend."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tools.coded_models import LOGARITHMS, STEP, Codes
from tools.measured_tables import Measured

Indices = npt.NDArray[np.int64]


class Moved(NamedTuple):
    """A parameter's way into a GGUF tensor: which rows and columns of it, of how many, and what was added.

    ``slab`` is the expert that a matrix is in a stack. ``problem`` says what no table can.
    """

    parameter: str
    tensor: str
    shape: tuple[int, ...]
    rows: Indices
    columns: Indices
    add: float = 0.0
    transposed: bool = False
    slab: int | None = None
    problem: str = ""


def moves(found: Measured) -> Iterator[Moved]:
    """Every parameter of the text model, in memory or in the checkpoint, in every tensor that has elements of it."""
    owners = _Owners({name: codes for name, codes in found.codes.items() if not name.endswith(LOGARITHMS)})
    for name, values in found.tensors.items():
        add = next((add for add in (0.0, 1.0, -1.0) if owners.know(values - np.float32(add))), None)
        if add is not None:
            numbers = ((values - np.float32(add)) / STEP).astype(np.int64)
            yield from (_moved(parameter, name, owners, numbers, add) for parameter in owners.of(numbers))


class _Owners:
    """The parameters by the numbers of their elements. One number may be of several: of a stack, and of one expert."""

    def __init__(self, codes: Mapping[str, Codes]) -> None:
        self.codes = codes
        self._ranges = {name: (values / STEP).astype(np.int64) for name, values in codes.items()}
        n = 1 + max(int(numbers.max()) for numbers in self._ranges.values())
        self.n = n
        self._of_number: dict[str, Indices] = {}

    def know(self, values: Codes) -> bool:
        """Whether all are numbers of elements."""
        numbers = values / STEP
        return bool((numbers == np.round(numbers)).all() and numbers.min() >= 1 and numbers.max() < self.n)

    def of(self, numbers: Indices) -> Iterator[str]:
        """The parameters that the numbers are of."""
        is_there = np.zeros(self.n, bool)
        is_there[numbers] = True
        return (name for name, own in self._ranges.items() if is_there[own].any())

    def local(self, parameter: str, numbers: Indices) -> Indices:
        """The place of each number in a parameter, -1 where it isn't there."""
        if parameter not in self._of_number:
            place = np.full(self.n, -1)
            place[self._ranges[parameter].ravel()] = np.arange(self._ranges[parameter].size)
            self._of_number[parameter] = place
        return self._of_number[parameter][numbers]


def _moved(parameter: str, tensor: str, owners: _Owners, numbers: Indices, add: float) -> Moved:
    shape = owners.codes[parameter].shape
    shape = (shape[0], shape[2]) if len(shape) == 3 and shape[1] == 1 else shape
    local = owners.local(parameter, numbers)
    slab = None
    if local.ndim == 3 and len(shape) == 2:
        slabs = np.flatnonzero((local >= 0).any(axis=(1, 2)))
        slab = int(slabs[0])
        local = local[slab] if len(slabs) == 1 else local
    none = np.arange(0)
    whole = Moved(parameter, tensor, shape, none, none, add, slab=slab)
    if (local < 0).any():
        return whole._replace(problem="is only a part of the tensor")
    if local.ndim != len(shape) or local.ndim > 3 or (local.ndim == 3 and not _keeps_experts(local, shape)):
        return whole._replace(problem=f"of {len(shape)} dimensions is in one of {numbers.ndim}, or experts move")
    if local.ndim == 1:
        return whole._replace(rows=local)
    return _of_matrix(whole, (local[0] if local.ndim == 3 else local), shape[-2:])


def _keeps_experts(local: Indices, shape: tuple[int, ...]) -> bool:
    size = shape[1] * shape[2]
    each = local - size * np.arange(len(local))[:, None, None]
    return len(local) == shape[0] and bool((each == each[0]).all())


def _of_matrix(whole: Moved, local: Indices, shape: tuple[int, ...]) -> Moved:
    rows, columns = local // shape[1], local % shape[1]
    if (rows == rows[:, :1]).all() and (columns == columns[:1]).all():
        return whole._replace(rows=rows[:, 0], columns=columns[0])
    if (rows == rows[:1]).all() and (columns == columns[:, :1]).all():
        turned = (*whole.shape[:-2], *shape[::-1])
        return whole._replace(shape=turned, rows=columns[:, 0], columns=rows[0], transposed=True)
    return whole._replace(problem="is scrambled")
