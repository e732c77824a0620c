"""What an adapter does to each GGUF tensor of its base: the adapter's parts, gathered under the names of GGUF."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from converter.architectures import Place
from converter.derive.adapter import Adapter, LoraPair, TokenRows
from converter.derive.adapter_tensors import AdapterTensor
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING, HEAD
from converter.orders import Orders, every
from converter.sources import StoredRows


@dataclass(slots=True)
class Change:
    """Everything that the adapter does to one module of one GGUF tensor.

    ``pairs`` are added, ``initial`` ones subtracted. ``saved`` replaces the base, ``own_base`` is the base that a
    delta was trained on. Of a bias, ``pairs`` count with their ``b_bias`` alone.
    """

    place: Place
    pairs: list[LoraPair] = field(default_factory=list)
    initial: list[LoraPair] = field(default_factory=list)
    saved: AdapterTensor | None = None
    own_base: AdapterTensor | None = None
    token_rows: list[TokenRows] = field(default_factory=list)


# A tensor's changes by the expert they belong to; None for a tensor that is one matrix, or a change to all experts.
Changes = Mapping[int | None, Change]


def changes_of(adapter: Adapter, base: BaseModel) -> Mapping[str, Changes]:
    """The changes of every GGUF tensor that a judged adapter touches, by the tensor's full name."""
    gathered: dict[str, dict[int | None, Change]] = {}

    def change(place: Place, parameter: str) -> Change:
        by_expert = gathered.setdefault(place.name(parameter), {})
        return by_expert.setdefault(place.expert, Change(place))

    for pair, place in _with_places(_pairs(adapter, base), base):
        change(place, "weight").pairs.append(pair)
        if pair.b_bias:
            change(place, "bias").pairs.append(pair)
    for pair, place in _with_places(_initial_pairs(adapter), base):
        change(place, "weight").initial.append(pair)
    for tensor, place in _with_places(adapter.changed_modules, base):
        change(place, tensor.role).saved = tensor
    for tensor, place in _with_places(_base_layers(adapter, base), base):
        change(place, tensor.role.removeprefix("base_layer.")).own_base = tensor
    for rows, place in _with_places(_token_rows(adapter, base), base):
        change(place, "weight").token_rows.append(rows)
    return gathered


def _pairs(adapter: Adapter, base: BaseModel) -> tuple[LoraPair, ...]:
    if not any(pair.n_experts > 1 for pair in adapter.pairs):
        return adapter.pairs
    from converter.derive.expert_layout import pairs_over

    return pairs_over(adapter, base)


def _initial_pairs(adapter: Adapter) -> tuple[LoraPair, ...]:
    """What is subtracted from the base. A base layer that was saved with the adapter is what was left of it already."""
    left = {tensor.module for tensor in adapter.base_layers if tensor.role == "base_layer.weight"}
    return tuple(pair for pair in adapter.initial.pairs if pair.module not in left) if adapter.initial else ()


Part = TypeVar("Part", LoraPair, AdapterTensor, TokenRows)


def _with_places(parts: tuple[Part, ...], base: BaseModel) -> Iterator[tuple[Part, Place]]:
    for part in parts:
        for place in base.places(part.module):
            yield part, place


def expert_factors(pair: LoraPair, orders: Orders, e: int, scale: float = 1.0) -> tuple[StoredRows, StoredRows]:
    """Of one of the experts whose factors a pair holds: lora_B (out, r), times ``scale``, and lora_A (r, in)."""
    n, b = pair.n_experts, pair.b.tensor
    a, n_columns = pair.a.tensor.slabs(n).slab(e), b.shape[1]
    if pair.is_turned:
        left, right = a.turned(), b.turned()
        return (
            StoredRows(pair.a.key, left, orders.rows, scale),
            StoredRows(pair.b.key, right, every(n, e, n_columns), columns=orders.columns),
        )
    return (
        StoredRows(pair.b.key, b, orders.rows, scale, columns=every(n, e, n_columns)),
        StoredRows(pair.a.key, a, columns=orders.columns),
    )


def _base_layers(adapter: Adapter, base: BaseModel) -> tuple[AdapterTensor, ...]:
    """The saved base layers; of a tied base the embedding's below its token rows is the head's too."""
    layers, heads = adapter.base_layers, [layer for layer in adapter.base_layers if layer.module == HEAD]
    with_rows = {rows.module for rows in _token_rows(adapter, base)}
    if not base.tied or heads or HEAD not in with_rows:
        return layers
    return (*layers, *(layer._replace(module=HEAD) for layer in layers if layer.module == EMBEDDING))


def _token_rows(adapter: Adapter, base: BaseModel) -> tuple[TokenRows, ...]:
    """The embedding's rows are the head's too in a tied base, unless the head has rows of its own.

    PEFT wraps both ends of a tied model with the embedding's rows (_set_trainable in peft/utils/other.py).
    """
    rows = adapter.token_rows
    if not base.tied or any(part.module == HEAD for part in rows):
        return rows
    return (*rows, *(TokenRows(HEAD, part.tensor, part.indices) for part in rows if part.module == EMBEDDING))
