"""The files of a PEFT adapter's directory: its config, its headers, its index, and what could not be read."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

from converter.read.adapter_config import AdapterConfig, read_adapter_config
from converter.read.checkpoint import (
    CONFIG_NAME,
    INDEX_NAME,
    PICKLE_NAME,
    SAFETENSORS_NAME,
    is_lfs_pointer,
    is_local_name,
    read_index,
)
from converter.read.files import Unreadable, could_not_read, exists, inside, named
from converter.read.limits import HEADER_NBYTES, TENSORS
from converter.read.safetensors_header import SafetensorsHeader, read_safetensors_header

_N_OTHERS: Final = 3

# What kept a file, or a part of it, from being read. Rules of the families ST, CF and SC report each.
FaultName = Literal[
    "config-missing", "config", "weights-missing", "weights", "lfs-pointer", "pickle", "index", "shard-name"
]


class Fault(NamedTuple):
    """Something that could not be read: which file, and why."""

    name: FaultName
    path: Path
    message: str


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """What an adapter's files say. ``index`` is that of a sharded one: key to shard file name."""

    config: AdapterConfig | None
    headers: tuple[SafetensorsHeader, ...]
    faults: tuple[Fault, ...]
    index: Mapping[str, str] | None


def read_adapter_files(directory: Path, sizes: Mapping[str, int]) -> AdapterFiles:
    """Read the files in ``directory``. One that is missing or malformed becomes a Fault.

    ``sizes`` are those of files of weights of which only the start is there.

    Raises ConverterError, status 2, where the system doesn't let us read a file.
    """
    with could_not_read(directory):
        config, config_faults = _read_config(directory / CONFIG_NAME)
        headers, weight_faults, index = _read_headers(directory, config, sizes)
    return AdapterFiles(config, headers, (*config_faults, *weight_faults), index)


def _read_config(path: Path) -> tuple[AdapterConfig | None, tuple[Fault, ...]]:
    try:
        return read_adapter_config(path), ()
    except FileNotFoundError:
        return None, (Fault("config-missing", path, "is missing"),)
    except Unreadable as error:
        return None, (Fault("config", path, str(error)),)


def _read_headers(
    directory: Path, config: AdapterConfig | None, sizes: Mapping[str, int]
) -> tuple[tuple[SafetensorsHeader, ...], tuple[Fault, ...], Mapping[str, str] | None]:
    names, faults, index = _weight_names(directory, config)
    headers: list[SafetensorsHeader] = []
    for name in names:
        read = _read_weights(directory / name, sizes.get(name))
        if isinstance(read, Fault):
            faults.append(read)
        else:
            headers.append(read)
        if sum(header.data_offset for header in headers) > HEADER_NBYTES or _n_tensors(headers) > TENSORS:
            what = f"at most {HEADER_NBYTES} bytes of headers and {TENSORS} tensors"
            return (), (*faults, Fault("weights", directory / name, f"is too much beside the others ({what})")), index
    return tuple(headers), tuple(faults), index


def _n_tensors(headers: Iterable[SafetensorsHeader]) -> int:
    return sum(len(header.entries) + len(header.malformed) for header in headers)


def _weight_names(
    directory: Path, config: AdapterConfig | None
) -> tuple[list[str], list[Fault], Mapping[str, str] | None]:
    if exists(directory / SAFETENSORS_NAME):
        return [SAFETENSORS_NAME], [], None
    if exists(directory / INDEX_NAME):
        return _shard_names(directory / INDEX_NAME)
    if config and config.mlx is not None:
        from converter.read.mlx_config import WEIGHTS_NAME

        return [WEIGHTS_NAME], [], None
    if exists(directory / PICKLE_NAME):
        fault = Fault("pickle", directory / PICKLE_NAME, "is a pickle, which can run code when it is loaded")
    else:
        fault = Fault("weights-missing", directory / SAFETENSORS_NAME, f"is missing{_others(directory)}")
    return [], [fault], None


def _others(directory: Path) -> str:
    """What weights lie there under other names: a whole model beside a stale config, or a file that was renamed."""
    names = [path.name for path in named(directory, "*.safetensors")][:_N_OTHERS]
    return (
        f"; {', '.join(names)} {'is' if len(names) == 1 else 'are'} there, which PEFT doesn't look at" if names else ""
    )


def _shard_names(path: Path) -> tuple[list[str], list[Fault], Mapping[str, str] | None]:
    try:
        index = read_index(path)
    except Unreadable as error:
        return [], [Fault("index", path, str(error))], None
    names = dict.fromkeys(index.values())
    foreign = [Fault("shard-name", path, f"names the shard {name!r}") for name in names if not is_local_name(name)]
    return [name for name in names if is_local_name(name)], foreign, index


def _read_weights(path: Path, whole_nbytes: int | None) -> SafetensorsHeader | Fault:
    try:
        if is_lfs_pointer(inside(path)):
            return Fault("lfs-pointer", path, "is a Git LFS pointer, not the weights")
        return read_safetensors_header(path, whole_nbytes)
    except Unreadable as error:
        return Fault("weights", path, str(error))
    except FileNotFoundError:
        return Fault("weights-missing", path, "is a broken link" if path.is_symlink() else "is missing")
