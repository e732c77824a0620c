"""GGUFs whose q, k and v, or experts' gate and up, are one tensor, by options of llama.cpp's converter.

The rows of the one are those of the others below each other (``modify_tensors`` in conversion/base.py). A row is a
whole number of blocks in every type, so each of q, k and v lies where its rows are. Of experts the one tensor is what
transformers has of them, which is then its place.
"""

import re
from collections.abc import Callable, Container, Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from converter.architectures import Architecture, Place

if TYPE_CHECKING:
    from converter.read.gguf_header import GgufHeader, GgufTensor

_FUSED: Final = re.compile(r"blk\.(\d+)\.attn_qkv\.(weight|bias)")
_PARTS: Final = ("attn_q", "attn_k", "attn_v")


class FusedPart(NamedTuple):
    """A tensor that is rows of another one, and how many."""

    tensor: str
    n_rows: int


Fused = Mapping[str, tuple[FusedPart, ...]]  # the parts of each tensor that is there in their place, in its order
DimsOf = Callable[[int], Mapping[str, int]]


def taken_apart(
    shards: "tuple[GgufHeader, ...]", architecture: Architecture, dims_of: DimsOf
) -> "tuple[tuple[GgufHeader, ...], Fused]":
    """The files with the parts of every fused tensor in its place, and what is fused.

    One whose rows are not those of its parts stays as it is: its modules are then missing, which a rule says.
    """
    fused: dict[str, tuple[FusedPart, ...]] = {}
    every = {tensor.name: tensor for shard in shards for tensor in shard.tensors}
    for tensor in every.values():
        parts = tuple(_parts(tensor.name, architecture, dims_of)) if _attends(tensor.name, every) else ()
        n_rows = sum(part.n_rows for part in parts)
        if n_rows and tensor.shape[:1] == (n_rows,):
            fused[tensor.name] = parts
    apart = (
        shard._replace(tensors=tuple(part for tensor in shard.tensors for part in _tensors(tensor, fused)))
        for shard in shards
    )
    return tuple(apart), fused


def with_joined_experts(architecture: Architecture) -> Architecture:
    """The architecture of a GGUF that was made by --fuse-gate-up-exps.

    Modules of single experts have no place then: each would be some rows of a slab.
    """
    joined = {module: tuple(_joined(places)) for module, places in architecture.modules.items()}
    return architecture._replace(modules=joined)


def _joined(places: tuple[Place, ...]) -> Iterator[Place]:
    halves = {place.tensor.rpartition(".")[2]: place.rows for place in places}
    if halves == {"ffn_gate_exps": "2 _ -> 2=0 _", "ffn_up_exps": "2 _ -> 2=1 _"}:
        yield places[0]._replace(tensor=places[0].tensor.replace("gate_exps", "gate_up_exps"), rows="")
    else:
        yield from places


def _attends(name: str, every: Container[str]) -> bool:
    """Whether a tensor's layer attends: linear attention of Qwen 3.5 has an attn_qkv of its own."""
    return f"{name.partition('.attn_qkv.')[0]}.attn_output.weight" in every


def _parts(name: str, architecture: Architecture, dims_of: DimsOf) -> Iterator[FusedPart]:
    match = _FUSED.fullmatch(name)
    if match is None:
        return
    places = [architecture.source(f"blk.{match[1]}.{stem}") for stem in _PARTS]
    dims = dims_of(int(match[1]))
    for stem, place in zip(_PARTS, places, strict=True):
        if place and all(places):
            yield FusedPart(f"blk.{match[1]}.{stem}.{match[2]}", dims[place.shape[0]])


def _tensors(tensor: "GgufTensor", fused: Fused) -> "Iterator[GgufTensor]":
    if tensor.name not in fused:
        yield tensor
        return
    row_nbytes = tensor.nbytes // tensor.shape[0]
    offset = tensor.offset
    for name, n_rows in fused[tensor.name]:
        shape = (n_rows, *tensor.shape[1:])
        yield tensor._replace(name=name, shape=shape, offset=offset, nbytes=n_rows * row_nbytes)
        offset += n_rows * row_nbytes
