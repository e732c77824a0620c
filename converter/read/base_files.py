"""The files of a base: a Hugging Face directory (config.json, with or without safetensors), or a GGUF, split or whole.

Raises ConverterError, status 2, wherever they can't be read: a malformed base is no fault of the adapter's.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from converter.errors import ConverterError
from converter.read.checkpoint import is_lfs_pointer, is_local_name, read_index
from converter.read.files import could_not_read, exists, inside, is_directory, is_file, mode_of, read_whole
from converter.read.limits import CONFIG_NBYTES
from converter.read.safetensors_header import SafetensorsHeader, read_safetensors_header
from converter.read.strict_json import json_object

if TYPE_CHECKING:
    from converter.read.gguf_header import GgufHeader

_SPLIT_NAME: Final = r"(?P<stem>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf"


class HuggingfaceFiles(NamedTuple):
    """config.json, and the headers of the weights; there may be none."""

    directory: Path
    config: Mapping[str, object]
    headers: tuple[SafetensorsHeader, ...]


class GgufFiles(NamedTuple):
    """The headers of a GGUF's files, in order."""

    path: Path
    shards: "tuple[GgufHeader, ...]"


def read_base_files(path: Path, sizes: Mapping[str, int] | None = None) -> HuggingfaceFiles | GgufFiles:
    """Read what lies at ``path``, a directory or a GGUF file; ``sizes`` are those of files that end early here."""
    with could_not_read(path):
        if is_directory(path):
            headers = (_base_header(file, (sizes or {}).get(file.name)) for file in _safetensors_files(path))
            return HuggingfaceFiles(path, _config(path), tuple(headers))
        if mode_of(path):
            return GgufFiles(path, _shards(path))
    what = "give a Hugging Face directory, a GGUF file, or the name of a model in the hub's cache with --base"
    raise ConverterError(f"{path}: no such base; {what}")


# --- Hugging Face ---------------------------------------------------------------------------------------------------


def _config(directory: Path) -> Mapping[str, object]:
    path = directory / "config.json"
    if not exists(path):
        raise ConverterError(f"{directory}: no config.json; a base is a Hugging Face directory or a GGUF file")
    with could_not_read(path):
        return json_object(read_whole(inside(path), CONFIG_NBYTES))


def _safetensors_files(directory: Path) -> tuple[Path, ...]:
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    # A link that leads nowhere is no base without weights, but one that wants to be mended.
    if exists(single):
        return (single,)
    if not exists(index):
        return ()
    with could_not_read(index):
        names = sorted(set(read_index(index).values()))
    for name in names:
        if not is_local_name(name) or not is_file(directory / name):
            raise ConverterError(f"{index}: names the shard {name!r}, which is not in {directory}; download it")
    return tuple(directory / name for name in names)


def _base_header(path: Path, whole_nbytes: int | None) -> SafetensorsHeader:
    with could_not_read(path):
        if is_lfs_pointer(inside(path)):
            raise ConverterError(f"{path}: is a Git LFS pointer, not the weights; run `git lfs pull`")
        return read_safetensors_header(path, whole_nbytes)


# --- GGUF -----------------------------------------------------------------------------------------------------------


def _shards(path: Path) -> "tuple[GgufHeader, ...]":
    from converter.read.gguf_header import read_gguf_header

    first = read_gguf_header(path)
    count = first.kv.get("split.count", 1)
    if not isinstance(count, int) or count < 2:
        return (first,)
    match = re.fullmatch(_SPLIT_NAME, path.name)
    if not match or int(match["count"]) != count:
        raise ConverterError(f"{path}: is one of {count} split files, but isn't named NAME-00001-of-{count:05}.gguf")
    paths = [path.with_name(f"{match['stem']}-{no:05}-of-{count:05}.gguf") for no in range(1, count + 1)]
    for shard in paths:
        if not is_file(shard):
            raise ConverterError(f"{shard}: missing; {path.name} is one of {count} split files and needs them all")
        with could_not_read(shard):
            _ = shard == path or inside(shard)
    return tuple(map(read_gguf_header, paths))
