"""Plans one merged GGUF: the base's tensors without a change as they are, the others merged.

With a head of its own (``--untie``, or an untied base) output.weight is the head's base plus the head's delta. On a
tied base without ``--untie`` only what both ends have in common may move the shared tensor, and it is added once,
through embed_tokens.
"""

from collections.abc import Iterator

from converter.derive.adapter import Adapter, LoraPair
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import HEAD
from converter.derive.vocabulary import vocabulary_of
from converter.dtypes import F32
from converter.orders import IDENTITY, Orders
from converter.planning.base_tensors import BaseTensor, base_tensors, huggingface_rows
from converter.planning.changes import Change, Changes, changes_of, expert_factors
from converter.planning.conversion_plan import PlannedFile, PlannedTensor
from converter.planning.head_stacks import HeadStack
from converter.planning.metadata import alignment_of, base_key_values
from converter.planning.outtypes import merged_type
from converter.planning.scaling import scaled, unscaled
from converter.planning.vocabulary import with_vocabulary
from converter.sources import (
    Delta,
    Magnitude,
    Merged,
    ReplacedRows,
    Rows,
    Source,
    Stacked,
    StoredColumns,
    StoredRows,
    Zeros,
)


def plan_merged(adapter: Adapter, base: BaseModel, outtype: str | None, *, untie: bool) -> PlannedFile:
    """Plan the merged model of a judged adapter over its base. Raises ConverterError for an unfit ``outtype``."""
    merging = _Merging(adapter, base, outtype)
    tensors = tuple(merging.planned(untie=untie and base.tied))
    key_values = with_vocabulary(base_key_values(base, tensors), adapter, base)
    return PlannedFile("model", tensors, key_values, alignment=alignment_of(base))


class _Merging:
    """The adapter's changes by GGUF tensor, to look up while walking the base's tensors."""

    def __init__(self, adapter: Adapter, base: BaseModel, outtype: str | None) -> None:
        self.base = base
        self.outtype = outtype
        self.vocabulary = vocabulary_of(adapter, base)
        self.changes = dict(changes_of(adapter, base))
        if base.tied and "output.weight" not in self.changes:
            self.changes |= _head_of_tied(adapter, base, self.changes.get("token_embd.weight"))

    def planned(self, *, untie: bool) -> Iterator[PlannedTensor]:
        names = set()
        for tensor in base_tensors(self.base):
            names.add(tensor.name)
            yield self._tensor(tensor.name, tensor)
            if untie and tensor.name == "token_embd.weight":
                # The embedding before any delta of its own, plus what the head has.
                yield self._tensor("output.weight", tensor)
        for name, changes in self.changes.items():
            # Of a tied base the head's change is the embedding's, or a tensor of its own by now.
            if name not in names and name != "output.weight":
                yield self._new_bias(name, changes)

    def _tensor(self, name: str, tensor: BaseTensor) -> PlannedTensor:
        changes, shape = self.changes.get(name), self._shape(name, tensor.shape)
        if shape != tensor.shape:
            tensor = tensor.first_rows(shape[0])
        if not changes:
            return tensor.planned(name)
        # llama.cpp adds biases and multiplies by norms in F32 only.
        ggml_type = merged_type(self.outtype, tensor.type.name, name, shape[-1]) if len(shape) > 1 else F32
        return PlannedTensor(name, shape, ggml_type, self._source(changes, tensor, shape))

    def _shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The tensor's shape; of an end, with the rows of the served vocabulary."""
        if self.vocabulary and name in ("token_embd.weight", "output.weight"):
            return (self.vocabulary.n_rows, *shape[1:])
        return shape

    def _new_bias(self, name: str, changes: Changes) -> PlannedTensor:
        (change,) = changes.values()
        shape = ((self.base.shape(change.place.module) or (0,))[0],)
        return PlannedTensor(name, shape, F32, self._merged(change, Zeros(shape), "bias"))

    def _source(self, changes: Changes, base: BaseTensor, shape: tuple[int, ...]) -> Source:
        if None not in changes:
            return Stacked(tuple(self._expert(changes.get(e), rows) for e, rows in enumerate(base.matrices)))
        change = changes[None]
        if change.place.stacked:
            return self._heads(change, base)
        if len(base.shape) == 3:
            orders = self.base.orders(change.place)
            experts = range(len(base.matrices))
            deltas = (
                tuple(Delta(*expert_factors(pair, orders, e), pair.scaling) for pair in change.pairs) for e in experts
            )
            return Stacked(tuple(map(Merged, base.matrices, deltas)))
        parameter = base.name.rpartition(".")[2]
        sections = self.base.factors(change.place) if parameter == "weight" else ()
        if sections:
            return scaled(self._merged(change, unscaled(base.matrices[0]), parameter), shape, sections)
        return self._merged(change, base.matrices[0], parameter)

    def _heads(self, change: Change, base: BaseTensor) -> Stacked:
        n_rows = self.base.dims_of(change.place.module)[change.place.shape[0]]
        stack = HeadStack(change, self.base.orders(change.place).rows, len(base.matrices), n_rows)
        return Stacked(tuple(stack.merged(head, rows) for head, rows in enumerate(base.matrices)))

    def _expert(self, change: Change | None, base: Rows) -> Merged | Rows:
        return self._merged(change, base, "weight") if change else base

    def _merged(self, change: Change, base: Rows, parameter: str) -> Merged | Rows:
        orders = self.base.orders(change.place)
        own = change.saved or change.own_base
        if own:
            # The tensor the delta was trained on: the same numbers as the base's, or else the better authority.
            base = huggingface_rows(own.key, own.tensor, change.place, orders, parameter)
        deltas = tuple(_deltas(change, orders, parameter))
        magnitude = _magnitude(change, orders) if parameter == "weight" else None
        replaced = tuple(ReplacedRows(StoredRows(r.tensor.key, r.tensor.tensor), r.indices) for r in change.token_rows)
        return Merged(base, deltas, magnitude, replaced) if deltas or replaced else base


def _head_of_tied(adapter: Adapter, base: BaseModel, embedding: Changes | None) -> dict[str, Changes]:
    """What a tied base's head without tensors of its own is: a saved pair's one, or as a resized embedding began."""
    place = base.place(HEAD)
    if not embedding or not place:
        return {}
    if any(tensor.module == HEAD and tensor.key in adapter.unchanged for tensor in adapter.saved_modules):
        return {}
    if adapter.is_saved_pair:
        return {"output.weight": embedding}
    began = embedding[None].own_base
    is_resized = began is not None and began.tensor.shape != base.shape(HEAD)
    return {"output.weight": {None: Change(place, own_base=began)}} if is_resized else {}


def _deltas(change: Change, orders: Orders, parameter: str) -> Iterator[Delta]:
    for sign, pairs in ((1.0, change.pairs), (-1.0, change.initial)):
        for pair in pairs:
            if parameter == "weight":
                yield _delta(pair, orders, sign * pair.scaling)
            elif pair.b_bias:
                yield Delta(StoredRows(pair.b_bias.key, pair.b_bias.tensor, orders.rows), None, sign * pair.scaling)


def _delta(pair: LoraPair, orders: Orders, scaling: float) -> Delta:
    a, b = pair.a, pair.b
    if pair.is_embedding:
        return Delta(StoredColumns(a.key, a.tensor), StoredColumns(b.key, b.tensor), scaling)
    left, right = StoredRows(b.key, b.tensor, orders.rows), StoredRows(a.key, a.tensor, columns=orders.columns)
    return Delta(left, right, scaling)


def _magnitude(change: Change, orders: Orders) -> Magnitude | None:
    for pair in change.pairs:
        if pair.magnitude:
            values = StoredRows(
                pair.magnitude.key, pair.magnitude.tensor, IDENTITY if pair.is_embedding else orders.rows
            )
            return Magnitude(values, "columns" if pair.is_embedding else "rows")
    return None
