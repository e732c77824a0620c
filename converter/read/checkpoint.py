"""Finds adapters under a path, and the weight files of one adapter.

What counts as an adapter: a directory with ``adapter_config.json`` or an ``adapter_model.*`` file.
- A path that is an adapter stands for itself and for the adapters in its sub-directories that PEFT names after
  an adapter (``save_pretrained`` writes every adapter but ``default`` to a sub-directory of its name).
- Any other directory stands for every adapter below it.
- ``checkpoint-*`` directories (trl, LLaMA-Factory, axolotl) are snapshots of a training run: they are passed over where
  a finished adapter lies beside or above them, and count where there is nothing else.
- A path to a weight file or to adapter_config.json stands for its directory.
- A directory that may not be looked into may hold an adapter: it is named, never passed over.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ELOOP
from pathlib import Path
from stat import S_ISDIR
from typing import Final, NamedTuple

from converter.read.files import (
    LFS_MAGIC,
    Unreadable,
    could_not_read,
    inside,
    is_directory,
    is_file,
    mode_of,
    named,
    open_regular,
    read_whole,
)  # fmt: skip
from converter.read.limits import INDEX_NBYTES, SHARDS
from converter.read.strict_json import parsed_json

CONFIG_NAME: Final = "adapter_config.json"
SAFETENSORS_NAME: Final = "adapter_model.safetensors"
INDEX_NAME: Final = "adapter_model.safetensors.index.json"
PICKLE_NAME: Final = "adapter_model.bin"

MAX_DEPTH: Final = 6
_PICKLES: Final = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
WEIGHT_ENDINGS: Final = (".bin", ".safetensors", ".pt", ".pth", ".ckpt", ".npz")


class Found(NamedTuple):
    """What a path stands for: adapters, sorted; and the directories that may not be looked into, with the reason."""

    adapters: tuple[Path, ...] = ()
    closed: tuple[tuple[Path, str], ...] = ()


def find_adapters(path: Path) -> Found:
    """The adapter directories that ``path`` stands for. What the system keeps from us is named, not passed over."""
    try:
        if is_file(path) and path.name.startswith("adapter_"):
            return Found((path.parent,))
        if not is_directory(path):
            return Found()
        if is_adapter(path):
            below = _below(path, depth=1)
            return Found((path, *_without_checkpoints(below.adapters)), below.closed)
    except OSError as error:
        return Found(closed=((path, error.strerror or str(error)),))
    below = _below(path, MAX_DEPTH)
    return Found(_without_checkpoints(below.adapters) or below.adapters, below.closed)


def is_adapter(directory: Path) -> bool:
    """Whether ``directory`` itself holds an adapter. A broken link or a pipe counts: its name says so.

    Raises OSError where we may not look.
    """
    names = (CONFIG_NAME, SAFETENSORS_NAME, INDEX_NAME, PICKLE_NAME)
    modes = (mode_of(directory / name, follow=False) for name in names)
    return any(mode and not S_ISDIR(mode) for mode in modes)


def _below(top: Path, depth: int) -> Found:
    """Look level by level, into each directory once: links to a directory above would make a tree without end."""
    adapters: list[Path] = []
    closed: list[tuple[Path, str]] = []
    seen, level = {_identity(top)}, [top]
    for _ in range(depth):
        children = [child for directory in level for child in _new_children(directory, seen, closed)]
        level = []
        for child in children:
            with _may_be_closed(child, closed):
                adapters += (child,) if is_adapter(child) else ()
                level.append(child)
    return Found(tuple(sorted(adapters)), tuple(closed))


def _new_children(directory: Path, seen: set[tuple[int, int]], closed: list[tuple[Path, str]]) -> Iterator[Path]:
    with _may_be_closed(directory, closed):
        for child in sorted(directory.iterdir()):
            with _may_be_closed(child, closed):
                if (
                    not child.name.startswith(".")
                    and is_directory(child)
                    and (identity := _identity(child)) not in seen
                ):
                    seen.add(identity)
                    yield child


@contextmanager
def _may_be_closed(directory: Path, closed: list[tuple[Path, str]]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != ELOOP:  # links in a circle lead to no adapter
            closed.append((directory, error.strerror or str(error)))


def _identity(directory: Path) -> tuple[int, int]:
    found = directory.stat()
    return found.st_dev, found.st_ino


def _without_checkpoints(found: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(path for path in found if not path.name.startswith("checkpoint-"))


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is a Git LFS pointer instead of the file it names."""
    with open_regular(path) as file:
        return file.read(len(LFS_MAGIC)) == LFS_MAGIC


def read_index(path: Path) -> dict[str, str]:
    """Key to shard file name, as the index at ``path`` states it, unchecked. Raises Unreadable, OSError."""
    parsed = parsed_json(read_whole(inside(path), INDEX_NBYTES))
    weight_map = parsed.get("weight_map") if isinstance(parsed, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise Unreadable("has no weight_map of key to file name")
    n_shards = len({*weight_map.values()})
    if n_shards > SHARDS:
        raise Unreadable(f"names {n_shards} files (at most {SHARDS})")
    return weight_map


def weights_beside(directory: Path) -> tuple[str, ...]:
    """The names of the files of weights in ``directory`` that PEFT would not look for there, sorted. Raises OSError."""
    names = sorted(name for name in os.listdir(directory) if name.endswith(WEIGHT_ENDINGS))  # noqa: PTH208  faster
    return tuple(name for name in names if not name.startswith("adapter_model.") and is_file(directory / name))


def pickles(directory: Path) -> Iterator[Path]:
    """The files in ``directory`` that hold a base's weights as pickles, by their names. Raises ConverterError."""
    with could_not_read(directory):
        yield from (path for pattern in _PICKLES for path in named(directory, pattern))


def is_local_name(name: str) -> bool:
    """Whether a shard's file name stays in its directory: no separator, no drive, no parent, nothing unprintable."""
    return name not in ("", ".", "..") and name.isprintable() and not any(mark in name for mark in "/\\:")
