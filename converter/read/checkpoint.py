"""Finds adapters under a path, and the weight files of one adapter.

What counts as an adapter: a directory with ``adapter_config.json`` or an ``adapter_model.*`` file.
- A path that is an adapter stands for itself and for the adapters in its sub-directories that PEFT names after
  an adapter (``save_pretrained`` writes every adapter but ``default`` to a sub-directory of its name).
- Any other directory stands for every adapter below it.
- ``checkpoint-*`` directories (trl, LLaMA-Factory, axolotl) are snapshots of a training run: they are passed over where
  a finished adapter lies beside or above them, and count where there is nothing else.
- A path to a weight file or to adapter_config.json stands for its directory.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from converter.read.files import Unreadable, exists, is_file, open_regular, read_whole
from converter.read.limits import INDEX_NBYTES, SHARDS
from converter.read.strict_json import parsed_json

CONFIG_NAME: Final = "adapter_config.json"
SAFETENSORS_NAME: Final = "adapter_model.safetensors"
INDEX_NAME: Final = "adapter_model.safetensors.index.json"
PICKLE_NAME: Final = "adapter_model.bin"

_LFS_MAGIC: Final = b"version https://git-lfs.github.com/spec/"
_MAX_DEPTH: Final = 6


def find_adapters(path: Path) -> tuple[Path, ...]:
    """The adapter directories that ``path`` stands for, sorted; empty where there is none."""
    if is_file(path) and path.name.startswith("adapter_"):
        return (path.parent,)
    if not path.is_dir():
        return ()
    if is_adapter(path):
        return (path, *_without_checkpoints(_adapters_below(path, depth=1)))
    found = tuple(_adapters_below(path, _MAX_DEPTH))
    return tuple(sorted(_without_checkpoints(found) or found))


def is_adapter(directory: Path) -> bool:
    """Whether ``directory`` itself holds an adapter. A broken link or a pipe counts: its name says so."""
    paths = (directory / name for name in (CONFIG_NAME, SAFETENSORS_NAME, INDEX_NAME, PICKLE_NAME))
    return any(path.is_symlink() or (exists(path) and not path.is_dir()) for path in paths)


def _adapters_below(directory: Path, depth: int) -> Iterator[Path]:
    if depth == 0:
        return
    for child in sorted(directory.iterdir()):
        if not child.is_dir() or child.name.startswith("."):
            continue
        if is_adapter(child):
            yield child
        yield from _adapters_below(child, depth - 1)


def _without_checkpoints(found: Iterator[Path] | tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(path for path in found if not path.name.startswith("checkpoint-"))


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is a Git LFS pointer instead of the file it names."""
    with open_regular(path) as file:
        return file.read(len(_LFS_MAGIC)) == _LFS_MAGIC


def read_index(path: Path) -> dict[str, str]:
    """Key to shard file name, as the index at ``path`` states it, unchecked. Raises Unreadable, OSError."""
    parsed = parsed_json(read_whole(path, INDEX_NBYTES))
    weight_map = parsed.get("weight_map") if isinstance(parsed, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise Unreadable("has no weight_map of key to file name")
    n_shards = len({*weight_map.values()})
    if n_shards > SHARDS:
        raise Unreadable(f"names {n_shards} files (at most {SHARDS})")
    return weight_map


def is_local_name(name: str) -> bool:
    """Whether a shard's file name stays in its directory: no separator, no drive, no parent, nothing unprintable."""
    return name not in ("", ".", "..") and name.isprintable() and not any(mark in name for mark in "/\\:")
