"""Every module that an adapter touches, looked for in the GGUF; what one layer doesn't tell, the others do."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np

from converter.architectures import numbers_in
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING, HEAD
from converter.matching.covers import Cover, Of, agrees, covers
from converter.matching.grids import Cells, Grid, Sheet, blocks
from converter.matching.orders import Way
from converter.matching.stored import Gguf, full_name
from converter.matching.vectors import Vector, vectors
from converter.matching.weights import Weights, weights_of
from converter.orders import order
from converter.read.stored import StoredTensor
from converter.values.orders import indices

_LAYER: Final = re.compile(r"(?<=\.)\d+(?=\.)")


# modeling_utils.py of transformers 5: else tensors have the names of the hub again.
_RESAVE: Final = "save it with transformers' save_pretrained(..., save_original_format=False)"


class Found(NamedTuple):
    """Where a module is: the tensors of its ``layer`` (None: of no layer) that have its matrix, or its vector."""

    layer: int | None
    covers: tuple[Cover, ...] = ()
    vector: Vector | None = None


class Missing(NamedTuple):
    """Why a module isn't found. ``by_structure``: other layers may tell."""

    why: str
    by_structure: bool = False


class Search:
    """Looks for modules of ``checkpoint`` in ``gguf``; what it found of one layer it tries first in the next."""

    def __init__(self, checkpoint: BaseModel, gguf: Gguf, *, is_conv1d: bool) -> None:
        self._checkpoint, self._gguf, self._is_conv1d = checkpoint, gguf, is_conv1d
        self._cells: dict[tuple[int, str], Cells | None] = {}
        self._known: dict[str, list[tuple[frozenset[tuple[str, tuple[int, ...]]], Found]]] = {}

    def all(self, modules: Iterable[str], looked_at: Callable[[], None]) -> Mapping[str, Found | Missing]:
        """Each of the modules; ``looked_at`` is called after each."""
        found: dict[str, Found | Missing] = {}
        for module in modules:
            found[module] = self._one(module)
            looked_at()
        for module, result in found.items():
            if isinstance(result, Missing) and result.by_structure:
                found[module] = self._by_structure(module) or result
        return found

    def _one(self, module: str) -> Found | Missing:
        weights = weights_of(self._checkpoint, module)
        if weights is None:
            return Missing(f"is not in the checkpoint {self._checkpoint.label} as numbers under this name: {_RESAVE}")
        if module in (EMBEDDING, HEAD):
            return self._end(module, weights)
        known = self._as_before(module, weights)
        result = known or self._anew(module, weights)
        if isinstance(result, Found) and known is None:
            shapes = self._gguf.shapes(result.layer)
            self._known.setdefault(across_layers(module), []).append((shapes, result))
        return result

    def copies(self, found: Mapping[str, Found | Missing]) -> Iterator[tuple[str, str]]:
        """The modules that the GGUF has in another layer, too, where the checkpoint has none of its own."""
        for module, it in found.items():
            if isinstance(it, Found) and it.layer is not None and not it.vector:
                other = self._copied_to(module, it)
                if other is not None:
                    yield (
                        module,
                        f"is in layer {other} of {self._gguf.label}, too, where the checkpoint has no such module",
                    )

    def _copied_to(self, module: str, found: Found) -> int | None:
        weights = weights_of(self._checkpoint, module)
        cover = found.covers[0]
        if weights is None or cover.kind != "matrix":
            return None
        sheet = Sheet(weights.matrices[0], is_turned=cover.way.transposed)
        row = self._gguf.by_layer[found.layer][cover.tensor].shape[0] // 2
        numbers = sheet.take(cover.taken(weights)[row : row + 1])
        if cover.way.columns:
            numbers = numbers[:, indices(order(cover.way.columns, sheet.shape[1], {}), sheet.shape[1])]
        for layer in self._gguf.by_layer:
            if layer not in (found.layer, None) and not self._has_own(module, layer):
                cells = self._cell(layer, cover.tensor, row)
                if cells is not None and cells.values.shape == numbers.shape and cells.agree(numbers).all():
                    return layer
        return None

    def _has_own(self, module: str, layer: int) -> bool:
        return weights_of(self._checkpoint, _LAYER.sub(str(layer), module, count=1)) is not None

    def _cell(self, layer: int, name: str, row: int) -> Cells | None:
        """One row of a layer's matrix; it is asked for by every other layer."""
        if (layer, name) not in self._cells:
            tensor = self._gguf.by_layer[layer].get(name)
            is_there = tensor is not None and len(tensor.shape) == 2 and row < tensor.shape[0]
            self._cells[layer, name] = Grid(tensor).rows(row, row + 1) if tensor is not None and is_there else None
        return self._cells[layer, name]

    # --- Ends ---------------------------------------------------------------------------------------------------------

    def _end(self, module: str, weights: Weights) -> Found | Missing:
        """Which tensor is an end, its name says; rows behind the vocabulary are left out of some."""
        name = "output.weight" if module == HEAD and "output.weight" in self._gguf.tensors else "token_embd.weight"
        tensor = self._gguf.tensors.get(name)
        if tensor is None or len(tensor.shape) != 2 or len(weights.shape) != 2:
            return Missing(f"is no matrix in both: {list(weights.shape)}, and {name} of {self._gguf.label}")
        (n_rows, width), sheet = tensor.shape, Sheet(weights.matrices[0])
        if width != sheet.shape[1] or n_rows > sheet.shape[0]:
            return Missing(f"is {list(sheet.shape)} in the checkpoint, {name} is {list(tensor.shape)}")
        grid = Grid(tensor)
        if not grid.is_known:
            return Missing(f"is in {name}, whose type {tensor.dtype} is not compared")
        for begin, end in blocks(*tensor.shape):
            agree = grid.rows(begin, end).agree(sheet.rows(begin, end)).all(axis=1)
            if not agree.all():
                row = begin + int(np.flatnonzero(~agree)[0])
                return Missing(f"is another one in {name}: row {row} differs")
        return Found(None, (Cover(name, "matrix", Way()),))

    # --- Others -------------------------------------------------------------------------------------------------------

    def _as_before(self, module: str, weights: Weights) -> Found | None:
        """As another layer has it, where this one consists of the same tensors."""
        layer = layer_of(module)
        if layer is None or len(weights.shape) < 2:
            return None
        shapes = self._gguf.shapes(layer)
        alike = (found for known, found in self._known.get(across_layers(module), ()) if known == shapes)
        return next((at for found in alike if (at := self._at(module, weights, found))), None)

    def _by_structure(self, module: str) -> Found | None:
        """As those other layers have it that consist of the same tensors and tell, if they are at one."""
        weights, shapes = weights_of(self._checkpoint, module), self._gguf.shapes(layer_of(module))
        known = [found for alike, found in self._known.get(across_layers(module), ()) if alike == shapes]
        if weights is None or len({(found.covers, found.vector) for found in known}) != 1:
            return None
        return self._at(module, weights, known[0])

    def _at(self, module: str, weights: Weights, found: Found) -> Found | None:
        """What was found of another layer, in this one; None where its numbers say otherwise."""
        layer = layer_of(module)
        tensors = self._gguf.by_layer.get(layer, {})
        if found.vector:
            is_so = found.vector.agrees(weights, tensors.get(found.vector.tensor))
            return Found(layer, vector=found.vector) if is_so else None
        of = self._of(module, weights, layer)
        there = all(cover.tensor in tensors and agrees(of, tensors[cover.tensor], cover) for cover in found.covers)
        return Found(layer, found.covers) if there else None

    def _anew(self, module: str, weights: Weights) -> Found | Missing:
        layer = layer_of(module)
        for at in dict.fromkeys((layer, None)):
            tensors = self._gguf.by_layer.get(at, {})
            result = (
                self._vector(weights, tensors, at)
                if len(weights.shape) == 1
                else self._matrix(module, weights, tensors, at)
            )
            if isinstance(result, Found) or result.by_structure:
                return result
        return result

    def _vector(self, weights: Weights, tensors: Mapping[str, StoredTensor], layer: int | None) -> Found | Missing:
        found = tuple(vectors(weights, tensors))
        if len(found) == 1:
            return Found(layer, vector=found[0])
        if not found:
            return Missing(f"is a vector that {self._where(layer)} hasn't, as it is or with 1 added")
        names = " and ".join(full_name(layer, vector.tensor) for vector in found[:2])
        return Missing(f"has the numbers of {names}, which are alike", by_structure=True)

    def _matrix(
        self, module: str, weights: Weights, tensors: Mapping[str, StoredTensor], layer: int | None
    ) -> Found | Missing:
        of = self._of(module, weights, layer)
        found, unclear = covers(of, tensors)
        if unclear:
            name, why = unclear[0]
            return Missing(f"is in {full_name(layer, name)}: {why}", by_structure=True)
        ways = {cover.way.transposed for cover in found}
        n_rows = weights.shape[-1 if True in ways else -2]
        times = np.zeros(n_rows, np.int64)
        for cover in found if len(ways) == 1 else ():
            times[cover.taken(weights)] += 1
        if (times == 1).all():
            return Found(layer, found)
        if (times > 1).any() or len(ways) > 1:
            names = " and ".join(full_name(layer, cover.tensor) for cover in found[:2])
            return Missing(f"is in {names}, and nothing tells which is meant", by_structure=True)
        return Missing(self._lacking(found, times, layer))

    def _lacking(self, found: tuple[Cover, ...], times: "np.ndarray", layer: int | None) -> str:
        if not found:
            return f"has numbers that {self._where(layer)} hasn't, in whatever order of rows or of columns"
        rows = np.flatnonzero(times == 0)
        names = " and ".join(full_name(layer, cover.tensor) for cover in found)
        return f"is in {names} without its row {rows[0]} and {len(rows) - 1} more, which are nowhere"

    def _where(self, layer: int | None) -> str:
        return f"layer {layer} of {self._gguf.label}" if layer is not None else self._gguf.label

    def _of(self, module: str, weights: Weights, layer: int | None) -> Of:
        _, *experts = (None, *numbers_in(f"{module}.")) if layer is None else numbers_in(f"{module}.")
        is_conv1d = self._is_conv1d and not weights.is_of_experts
        return Of(weights, experts[-1] if experts else None, weights.is_of_experts, is_conv1d)


def layer_of(module: str) -> int | None:
    """The number of a module's layer, if it has one."""
    numbers = numbers_in(module)
    return numbers[0] if numbers else None


def across_layers(module: str) -> str:
    """A module's name without the number of its layer."""
    return _LAYER.sub("{i}", module, count=1)
