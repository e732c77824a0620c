"""Which tensors that an adapter saved whole are the base's own, number by number: they say nothing.

PEFT saves head and embedding beside a LoRA (save_embedding_layers) whether training changed them or not; of a base with
spare rows that resize_token_embeddings took away, it saves the first rows.
"""

from dataclasses import replace

from converter.derive.adapter import Adapter
from converter.derive.adapter_tensors import AdapterTensor
from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING, HEAD
from converter.read.stored import StoredTensor
from converter.values.numbers import are_equal

_ENDS = (EMBEDDING, HEAD)


def with_unchanged(adapter: Adapter, base: BaseModel) -> Adapter:
    """The adapter, which knows what of it is unchanged. Raises ConverterError where a file can't be read."""
    keys = frozenset(tensor.key for tensor in adapter.saved_modules if _is_the_bases(tensor, base))
    return replace(adapter, unchanged=keys) if keys else adapter


def _is_the_bases(saved: AdapterTensor, base: BaseModel) -> bool:
    stored = _counterpart(saved, base)
    if stored is None:
        return False
    n_rows = saved.tensor.shape[0] if saved.tensor.shape else 0
    if saved.module in _ENDS and len(stored.shape) == 2 and 0 < n_rows < stored.shape[0]:
        nbytes = stored.nbytes // stored.shape[0] * n_rows
        stored = stored._replace(shape=(n_rows, stored.shape[1]), nbytes=nbytes)
    return are_equal(saved.tensor, stored)


def _counterpart(saved: AdapterTensor, base: BaseModel) -> StoredTensor | None:
    """The base's own tensor, where it is kept in the order in which PEFT saves it: a GGUF's ends are."""
    if saved.role == "weight":
        return base.weight(saved.module) if saved.module in _ENDS or base.format == "huggingface" else None
    return base.tensors.get(f"{saved.module}.{saved.role}") if base.format == "huggingface" else None
