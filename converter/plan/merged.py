"""Plans one merged GGUF from a GGUF base: tensors without a delta copied byte for byte, the others merged.

With a head of its own (``--untie``, or an untied base) output.weight is the head's base plus the head's delta. On a
tied base without ``--untie`` only a tied pair may move the shared tensor, and it is added once, through embed_tokens.
"""

from pathlib import Path

from converter.plan.conversion_plan import (
    Delta,
    MergedRows,
    PlannedFile,
    PlannedTensor,
    Source,
    StoredColumns,
    StoredRows,
)
from converter.plan.copied import copied_key_values, copied_tensor, stored
from converter.plan.outtypes import merged_type
from converter.read.adapter import Adapter, LoraPair
from converter.read.base_model import BaseModel
from converter.read.gguf_header import GgufTensor
from converter.read.module_paths import HEAD
from converter.transforms import IDENTITY, Order, order_of


def plan_merged(adapter: Adapter, base: BaseModel, outtype: str | None, *, untie: bool) -> PlannedFile:
    """Plan the merged model of a judged adapter over a GGUF base. Raises ConverterError for an unfit ``outtype``."""
    parts = _Parts(adapter, base, outtype)
    tensors: list[PlannedTensor] = []
    for shard in base.shards:
        for tensor in shard.tensors:
            tensors.append(parts.planned(tensor, shard.path))
            if untie and base.tied and tensor.name == "token_embd.weight":
                tensors.append(parts.untied_head(tensor, shard.path))
    return PlannedFile(tuple(tensors), copied_key_values(base), alignment=base.shards[0].alignment)


class _Parts:
    """The adapter's parts by module, to look up while walking the base's tensors."""

    def __init__(self, adapter: Adapter, base: BaseModel, outtype: str | None) -> None:
        self.base = base
        self.outtype = outtype
        self.pairs = {pair.module: pair for pair in adapter.pairs}
        self.saved = {tensor.module: tensor for tensor in adapter.saved_modules}
        self.own_base = {tensor.module: tensor for tensor in adapter.base_layers}

    def planned(self, tensor: GgufTensor, path: Path) -> PlannedTensor:
        stem, _, parameter = tensor.name.rpartition(".")
        target = self.base.architecture.source(stem) if self.base.architecture else None
        module = target.module if target and parameter == "weight" else None
        return self._planned(tensor.name, tensor, path, module)

    def untied_head(self, embedding: GgufTensor, path: Path) -> PlannedTensor:
        """output.weight of a tied base: the embedding before any delta of its own, plus what the head has."""
        return self._planned("output.weight", embedding, path, HEAD)

    def _planned(self, name: str, tensor: GgufTensor, path: Path, module: str | None) -> PlannedTensor:
        if module is None or (module not in self.pairs and module not in self.saved):
            return copied_tensor(name, tensor, path)
        ggml_type = merged_type(self.outtype, tensor.type.name, name, tensor.shape[-1])
        return PlannedTensor(name, tensor.shape, ggml_type, self._source(tensor, path, module))

    def _source(self, tensor: GgufTensor, path: Path, module: str) -> Source:
        target = self.base.target(module)
        order = order_of(target, self.base.dims) if target else IDENTITY
        if module in self.saved:
            return StoredRows(self.saved[module].key, self.saved[module].tensor, order)
        rows = StoredRows(tensor.name, stored(tensor, path))
        if module in self.own_base:
            # The tensor the delta was trained on: the same numbers as the base's, or else the better authority.
            rows = StoredRows(self.own_base[module].key, self.own_base[module].tensor, order)
        return MergedRows(rows, _delta(self.pairs[module], order))


def _delta(pair: LoraPair, order: Order) -> Delta:
    a, b = pair.a, pair.b
    if pair.is_embedding:
        return Delta(StoredColumns(a.key, a.tensor), StoredColumns(b.key, b.tensor), pair.scaling)
    return Delta(StoredRows(b.key, b.tensor, order), StoredRows(a.key, a.tensor), pair.scaling)
