"""The numbers of a module as a checkpoint has them: one matrix, or one for each expert.

transformers 5 keeps the experts of a layer in one parameter, and checkpoints on the hub have them one by one, by other
names (conversion_mapping.py in transformers): a module that is put together is looked for in its parts.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from converter.derive.base_model import BaseModel
from converter.derive.module_paths import EMBEDDING, HEAD
from converter.read.stored import StoredTensor
from converter.sources import JoinedRows, Rows, StoredRows, shape_of
from converter.values.rows import FLOAT_DTYPES

# A parameter of all experts: what each expert's own modules are called, gate before up.
_OF_EXPERTS: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")),
    "up_proj": (("up_proj",), ("w3",)),
    "down_proj": (("down_proj",), ("w2",)),
}
# The same in one tensor, of Granite's.
_STACKED: Final = {"gate_up_proj": "input_linear", "down_proj": "output_linear"}
# What the block of a layer is called that holds experts.
_BLOCKS: Final = ("mlp", "block_sparse_moe", "feed_forward")


class Weights(NamedTuple):
    """``matrices`` are those of each expert, or the only one. ``shape`` is the whole parameter's."""

    keys: tuple[str, ...]
    matrices: tuple[Rows, ...]
    shape: tuple[int, ...]

    @property
    def is_of_experts(self) -> bool:
        """Whether it is one parameter of all experts."""
        return len(self.shape) == 3


def weights_of(checkpoint: BaseModel, module: str) -> Weights | None:
    """The module's weight, None where the checkpoint hasn't got it. A tied head has that of the embedding."""
    for name in _names(module):
        stored = checkpoint.tensors.get(f"{name}.weight") or checkpoint.tensors.get(name)
        if stored is not None:
            return _whole(name, stored) if _is_readable(stored) else None
    put_together = next((found for name in _names(module) if (found := _of_experts(checkpoint, name))), None)
    if put_together is None and module == HEAD:
        return weights_of(checkpoint, EMBEDDING)
    return put_together


def _is_readable(stored: StoredTensor) -> bool:
    """Whether it is a vector, a matrix or a stack of them, of floating-point numbers."""
    return len(stored.shape) in (1, 2, 3) and 0 not in stored.shape and stored.dtype in FLOAT_DTYPES


def _names(module: str) -> Iterator[str]:
    yield module
    for block in _BLOCKS:
        if f".{block}." in module:
            yield from (module.replace(f".{block}.", f".{other}.", 1) for other in _BLOCKS if other != block)


def _whole(key: str, stored: StoredTensor) -> Weights:
    slabs = [stored.slab(e) for e in range(stored.shape[0])] if len(stored.shape) == 3 else [stored]
    return Weights((key,), tuple(StoredRows(key, slab) for slab in slabs), stored.shape)


def _of_experts(checkpoint: BaseModel, module: str) -> Weights | None:
    experts, _, parameter = module.rpartition(".")
    if not experts.endswith(".experts"):
        return None
    stacked = checkpoint.tensors.get(f"{experts.removesuffix('.experts')}.{_STACKED.get(parameter, '')}.weight")
    if stacked is not None and len(stacked.shape) == 3 and _is_readable(stacked):
        return _whole(module, stacked)
    for parts in _OF_EXPERTS.get(parameter, ()):
        each = tuple(_each(checkpoint, experts, parts))
        if each and len({*map(shape_of, each)}) == 1:
            keys = tuple(f"{experts}.{{e}}.{part}" for part in parts)
            return Weights(keys, each, (len(each), *shape_of(each[0])))
    return None


def _each(checkpoint: BaseModel, experts: str, parts: tuple[str, ...]) -> Iterator[Rows]:
    """The matrix of each expert in order, of its parts below each other."""
    for e in range(_n_experts(checkpoint, experts)):
        keys = [f"{experts}.{e}.{part}.weight" for part in parts]
        found = [(key, checkpoint.tensors[key]) for key in keys if key in checkpoint.tensors]
        if len(found) < len(parts) or not all(len(it.shape) == 2 and _is_readable(it) for _, it in found):
            return
        if len({it.shape[1] for _, it in found}) > 1:
            return
        rows = tuple(StoredRows(key, stored) for key, stored in found)
        yield rows[0] if len(rows) == 1 else JoinedRows(rows)


def _n_experts(checkpoint: BaseModel, experts: str) -> int:
    numbered = re.compile(rf"{re.escape(experts)}\.(\d{{1,6}})\.")
    numbers = [int(found[1]) for key in checkpoint.tensors if (found := numbered.match(key))]
    return max(numbers, default=-1) + 1
