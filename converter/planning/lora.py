"""Plans a LoRA GGUF: factors as llama.cpp's loader wants them (src/llama-adapter.cpp), nothing merged."""

import re
import struct
from collections.abc import Iterator, Mapping
from math import inf
from types import MappingProxyType
from typing import Final, NamedTuple

from converter.architectures import Place
from converter.derive.adapter import Adapter, LoraPair
from converter.derive.base_model import BaseModel
from converter.derive.fused_gguf import FusedPart
from converter.derive.model_names import HUB_NAME, without_cache
from converter.dtypes import F16, F32, GgmlType
from converter.errors import ConverterError
from converter.planning.changes import Change, Changes, changes_of, expert_factors
from converter.planning.conversion_plan import NewKeyValue, PlannedFile, PlannedTensor
from converter.planning.outtypes import factor_type
from converter.planning.scaling import scaled
from converter.read.stored import StoredTensor
from converter.sources import (
    JoinedColumns,
    JoinedRows,
    Rows,
    Stacked,
    StoredColumns,
    StoredRows,
    Zeros,
    shape_of,
    stored_in,
)


def plan_lora(adapter: Adapter, base: BaseModel, outtype: str | None, name: str = "") -> PlannedFile:
    """Plan the LoRA GGUF of a judged adapter. Raises ConverterError where ``outtype`` can't hold factors."""
    changes = changes_of(adapter, base)
    ranks = _ranks_of_fused(changes, base)
    alpha = common_alpha(changes, ranks)
    writer = _Factors(base, alpha, outtype, ranks)
    alone = {name: by_expert for name, by_expert in changes.items() if name not in ranks}
    tensors = [tensor for name, by_expert in alone.items() for tensor in writer.planned(name, by_expert)]
    for fused, parts in base.fused.items():
        tensors += writer.planned_as_one(fused, parts, changes)
    return PlannedFile(
        "lora", tuple(tensors), tuple(_key_values(adapter, base, 1.0 if alpha is None else alpha)), name=name
    )


def _ranks_of_fused(changes: Mapping[str, Changes], base: BaseModel) -> Mapping[str, int]:
    """Of each tensor that is part of another one in the base's file: the rank of all that changes there."""
    ranks: dict[str, int] = {}
    for parts in base.fused.values():
        touched = [part.tensor for part in parts if part.tensor in changes]
        ranks |= dict.fromkeys(touched, sum(rank_of(changes[name][None]) for name in touched))
    return ranks


def common_alpha(changes: Mapping[str, Changes], ranks: Mapping[str, int] = MappingProxyType({})) -> float | None:
    """The one alpha that gives every tensor its scale as alpha / rank, or None where there is none or it is 0.

    ``ranks`` are those of tensors whose factors are joined with others'.
    llama.cpp scales by alpha / rank with one float32 alpha a file, and takes 0 for "no scaling" (get_scale in
    src/llama-adapter.h).
    """
    every = [(name, change) for name, by_expert in changes.items() for change in by_expert.values()]
    alphas = {
        _as_float32(pair.scaling * ranks.get(name, rank_of(change))) for name, change in every for pair in change.pairs
    }
    alpha = alphas.pop() if len(alphas) == 1 else 0.0
    return alpha or None


def rank_of(change: Change) -> int:
    """The rank of a tensor's factors in the file: of its pairs, beside each other."""
    return sum(pair.rank for pair in (*change.pairs, *change.initial))


_NORMAL_FLOAT32: Final = (2.0**-126, 2.0**128 - 2.0**104)


def _as_float32(alpha: float) -> float:
    """The nearest float32; 0 where none has its full precision."""
    smallest, largest = _NORMAL_FLOAT32
    if not smallest <= abs(alpha) <= largest:
        return 0.0
    nearest: float = struct.unpack("<f", struct.pack("<f", alpha))[0]
    return nearest


class _Factors(NamedTuple):
    """Plans the two factors of each tensor."""

    base: BaseModel
    alpha: float | None
    outtype: str | None
    ranks: Mapping[str, int]

    def planned(self, name: str, changes: Changes) -> Iterator[PlannedTensor]:
        if None not in changes:
            yield from self._stack(name, *self._by_expert(changes))
        elif changes[None].pairs[0].n_experts > 1:
            yield from self._stack(name, *self._stacked(changes[None]))
        else:
            a, b = self._matrices(changes[None])
            # Rows of tokens that the GGUF doesn't have stay behind.
            yield self._matrix(f"{name}.lora_a", a, self._n_tokens(name == "token_embd.weight"))
            yield self._left(f"{name}.lora_b", b, changes[None].place, self._n_tokens(name == "output.weight"))

    def planned_as_one(
        self, name: str, parts: tuple[FusedPart, ...], changes: Mapping[str, Changes]
    ) -> Iterator[PlannedTensor]:
        """The factors of a tensor that has several modules' rows below each other: each lora_b among zeros."""
        n_rows, begin = sum(part.n_rows for part in parts), 0
        a: list[Rows] = []
        b: list[Rows] = []
        for part in parts:
            if part.tensor in changes:
                left, right = self._matrices(changes[part.tensor][None])
                rank = shape_of(right)[1]
                above, below = Zeros((begin, rank)), Zeros((n_rows - begin - part.n_rows, rank))
                a.append(left)
                b.append(JoinedRows(tuple(rows for rows in (above, right, below) if shape_of(rows)[0])))
            begin += part.n_rows
        if a:
            yield self._matrix(f"{name}.lora_a", JoinedRows(tuple(a)), inf)
            yield self._matrix(f"{name}.lora_b", JoinedColumns(tuple(b)), inf)

    def _n_tokens(self, counts_tokens: bool) -> float:  # noqa: FBT001  a fact
        return self.base.dims["vocab"] if counts_tokens else inf

    def _matrix(self, name: str, rows: Rows, at_most: float) -> PlannedTensor:
        n_rows, n_columns = shape_of(rows)
        return PlannedTensor(name, (int(min(n_rows, at_most)), n_columns), self._type((rows,)), rows)

    def _left(self, name: str, rows: Rows, place: Place, at_most: float) -> PlannedTensor:
        """lora_B, times what the weight is times; it is F32 then, as whatever is multiplied."""
        planned, sections = self._matrix(name, rows, at_most), self.base.factors(place)
        if not sections:
            return planned
        return planned._replace(type=F32, source=scaled(rows, shape_of(rows), sections))

    def _stack(self, name: str, a: tuple[Rows, ...], b: tuple[Rows, ...]) -> Iterator[PlannedTensor]:
        for factor, parts in (("lora_a", a), ("lora_b", b)):
            shape = (len(parts), *shape_of(parts[0]))
            yield PlannedTensor(f"{name}.{factor}", shape, self._type(parts), Stacked(parts))

    def _matrices(self, change: Change) -> tuple[Rows, Rows]:
        rows, columns = self.base.orders(change.place)
        a: list[Rows] = []
        b: list[Rows] = []
        for pair, scale in self._scaled(change):
            a.append(
                StoredColumns(pair.a.key, pair.a.tensor)
                if pair.is_embedding
                else StoredRows(pair.a.key, pair.a.tensor, columns=columns)
            )
            b.append(StoredRows(pair.b.key, pair.b.tensor, rows, scale))
        if len(a) == 1:
            return a[0], b[0]
        return (JoinedColumns if change.pairs[0].is_embedding else JoinedRows)(tuple(a)), JoinedColumns(tuple(b))

    def _scaled(self, change: Change) -> Iterator[tuple[LoraPair, float]]:
        """Each pair, and what its lora_b is multiplied by; what is subtracted comes last.

        Without a common alpha the file says 1, and lora_b carries scaling * rank: llama.cpp divides by rank again.
        """
        rank = self.ranks.get(change.place.name("weight"), rank_of(change))
        whole = 1.0 / change.pairs[0].scaling if self.alpha is not None else rank
        for pair in change.pairs:
            yield pair, 1.0 if self.alpha is not None else pair.scaling * whole
        for pair in change.initial:
            yield pair, -pair.scaling * whole

    def _stacked(self, change: Change) -> tuple[tuple[Rows, ...], tuple[Rows, ...]]:
        """The factors of all experts, which one pair holds together."""
        ((pair, scale),) = self._scaled(change)
        orders = self.base.orders(change.place)
        factors = [expert_factors(pair, orders, e, scale) for e in range(pair.n_experts)]
        return tuple(a for _, a in factors), tuple(b for b, _ in factors)

    def _by_expert(self, changes: Changes) -> tuple[tuple[Rows, ...], tuple[Rows, ...]]:
        """The factors of a layer's experts, each of its own pair; zeros for an expert that has none."""
        some = next(iter(changes.values()))
        n_out, n_in = some.pairs[0].shape
        rank = rank_of(some)
        none: tuple[Rows, Rows] = (Zeros((rank, n_in)), Zeros((n_out, rank)))
        experts = range(self.base.dims["n_expert"])
        factors = [self._matrices(changes[e]) if e in changes else none for e in experts]
        return tuple(a for a, _ in factors), tuple(b for _, b in factors)

    def _type(self, parts: tuple[Rows, ...]) -> GgmlType:
        """A factor's own type; F32 where it is multiplied, or put together of several types."""
        stored = [rows for part in parts for rows in stored_in(part)]
        dtypes = {rows.tensor.dtype for rows in stored}
        if len(dtypes) > 1 or any(isinstance(rows, StoredRows) and rows.scale != 1.0 for rows in stored):
            return F32
        dtype = dtypes.pop()
        if dtype == "BF16" and self.outtype in (None, "auto"):
            return _type_of_bfloat16({rows.tensor for rows in stored})
        return factor_type(self.outtype, dtype)


def _type_of_bfloat16(tensors: set[StoredTensor]) -> GgmlType:
    """F16 where it holds every number, else F32: llama.cpp rounds what is multiplied with a BF16 factor to BF16."""
    from converter.values.numbers import holds_in_float16

    return F16 if all(map(holds_in_float16, tensors)) else F32


def _key_values(adapter: Adapter, base: BaseModel, alpha: float) -> Iterator[NewKeyValue]:
    yield NewKeyValue("general.architecture", _architecture(base))
    yield NewKeyValue("general.type", "adapter")
    yield NewKeyValue("adapter.type", "lora")
    yield NewKeyValue("adapter.lora.alpha", float(alpha))
    yield from _base_names(adapter)


def _architecture(base: BaseModel) -> str:
    if base.architecture is None:
        raise ConverterError(f"{base.path}: model_type {base.model_type!r} is not supported")
    return base.architecture.name


def _base_names(adapter: Adapter) -> Iterator[NewKeyValue]:
    """The base's hub name, where the config has one; a local path says nothing to others."""
    name = without_cache((adapter.config.base_model_name_or_path if adapter.config else None) or "")
    if re.fullmatch(HUB_NAME, name):
        organization, _, model = name.partition("/")
        yield NewKeyValue("general.base_model.count", 1)
        yield NewKeyValue("general.base_model.0.name", model)
        yield NewKeyValue("general.base_model.0.organization", organization)
        yield NewKeyValue("general.base_model.0.repo_url", f"https://huggingface.co/{name}")
