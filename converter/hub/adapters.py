"""The adapters at an address of a hub: their small files whole, of their weights the headers, and nothing else.

They are put into a private directory, where all that reads adapters reads them as it reads any other. What wasn't
fetched isn't there: a file of weights ends behind its header, so that whoever asks for its numbers gets an error and
never zeros, as a sparse file of the right size would give; its true size is handed over beside it. Of a file that the
rules know by its name alone there is the name.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from converter.derive.adapter import Adapter, read_adapter
from converter.derive.pickles import ENDINGS
from converter.errors import NOTHING_LOOKED_AT, ConverterError
from converter.fingerprint import RECORD_NAME
from converter.hub.client import Source
from converter.hub.fetching import AT_ONCE, Folder, ask_hub, fetch_header, fetch_whole, require_names
from converter.hub.loop import every
from converter.read.checkpoint import (
    CONFIG_NAME,
    INDEX_NAME,
    MAX_DEPTH,
    PICKLE_NAME,
    SAFETENSORS_NAME,
    WEIGHT_ENDINGS,
    find_adapters,
    is_local_name,
    read_index,
)
from converter.read.files import Unreadable
from converter.read.hub_address import Address, OnHub
from converter.read.limits import CONFIG_NBYTES, HUB_PICKLE_NBYTES, INDEX_NBYTES, RECORD_NBYTES, TOKENIZER_NBYTES
from converter.read.mlx_config import WEIGHTS_NAME
from converter.read.tokenizer import TOKENIZER_FILES
from converter.scratch import Scratch

# What the rules read whole, and how much of it.
_WHOLE: Final[Mapping[str, int]] = {
    CONFIG_NAME: CONFIG_NBYTES,
    INDEX_NAME: INDEX_NBYTES,
    RECORD_NAME: RECORD_NBYTES,
    **dict.fromkeys(TOKENIZER_FILES, TOKENIZER_NBYTES),
}
_MARKS: Final = (CONFIG_NAME, SAFETENSORS_NAME, INDEX_NAME, PICKLE_NAME)  # by which an adapter is found


class _Fetched(NamedTuple):
    """One adapter as far as it is here: what can be read of each file, its true size, and what wasn't fetched."""

    directory: Path
    address: Address
    sizes: Mapping[str, int]
    unread: tuple[str, ...]


def read_adapters_on_hub(address: Address) -> tuple[Adapter, ...]:
    """Read the adapters that an address stands for, as ``find_adapters`` says it of a path; without their numbers.

    Raises ConverterError: status 3 where there is none, 2 where the hub can't be asked or its answers don't hold.
    """
    place = Scratch()
    try:
        return tuple(
            read_adapter(one.directory, one.sizes, on_hub=OnHub(one.address, one.unread, place))
            for one in ask_hub(address, partial(_all, place=place.path))
        )
    except OSError as error:
        place.close()
        raise ConverterError(f"{address}: can't be kept in {place.path}: {error.strerror or error}") from error
    except BaseException:
        place.close()
        raise


def read_adapter_on_hub(address: Address) -> Adapter:
    """Read the adapter at an address, or the only one below it. Raises as ``read_adapters_on_hub``, and at several."""
    adapters = read_adapters_on_hub(address)
    here = [one for one in adapters if one.on_hub and one.on_hub.address.folder == address.folder] or adapters
    if len(here) > 1:
        names = ", ".join(str(one.on_hub.address) for one in here[:3] if one.on_hub)
        raise ConverterError(f"{address}: holds {len(here)} adapters ({names}, ...); give one of them")
    return here[0]


async def _all(hub: Source, address: Address, files: Mapping[str, int], *, place: Path) -> Sequence[_Fetched]:
    """Fetch what the rules read of every adapter at an address."""
    one_of = asyncio.Semaphore(AT_ONCE)
    found = [*_folders(files, address, place / "listed")]
    if not found:
        raise ConverterError(f"{address}: holds no adapter (no {CONFIG_NAME})", status=NOTHING_LOOKED_AT)
    own: dict[str, dict[str, int]] = {folder: {} for folder in found}
    for path, size in files.items():
        folder, _, name = path.rpartition("/")
        if folder in own:
            own[folder][name] = size
    folders = [
        Folder(hub, address / folder if folder else address, own[folder], place / str(i), one_of)
        for i, folder in enumerate(found)
    ]
    return await every(map(_adapter, folders))


def _folders(files: Mapping[str, int], address: Address, place: Path) -> Iterator[str]:
    """The folders that hold the adapters: told by the one that tells it of directories, over empty files."""
    place.mkdir()
    marks = [path for path in files if (parts := path.split("/"))[-1] in _MARKS and len(parts) <= MAX_DEPTH + 1]
    for path in marks:
        require_names(path, address)
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).touch()
    stored = {path.relative_to(place).as_posix() for path in place.rglob("*")}
    for path in marks:
        if path not in stored:
            raise ConverterError(
                f"{address}: {path} differs from another in case alone, and this machine would keep one of the two; "
                "give the address of each folder"
            )
    for directory in find_adapters(place).adapters:
        found = directory.relative_to(place).as_posix()
        yield "" if found == "." else found


# --- One adapter ------------------------------------------------------------------------------------------------------


async def _adapter(folder: Folder) -> _Fetched:
    folder.directory.mkdir()
    whole = _small_files(folder)
    await every(fetch_whole(folder, name, _WHOLE.get(name, HUB_PICKLE_NBYTES)) for name in whole)
    weights = _weights(folder)
    await every(fetch_header(folder, name) for name in weights)
    known_by_name = [
        name for name in folder.files if name not in {*whole, *weights} and name.endswith((*ENDINGS, *WEIGHT_ENDINGS))
    ]
    for name in known_by_name:
        require_names(name, folder.address)
        (folder.directory / name).touch()
    sizes = {name: folder.files[name] for name in weights}
    return _Fetched(folder.directory, folder.address, sizes, tuple(known_by_name))


async def wanted_files(folder: Folder) -> Sequence[str]:
    """The files of an adapter that are needed where it is converted; none where there is no adapter.

    The index of shards, where there is one, is fetched.
    """
    if not any(name in folder.files for name in (*_MARKS, WEIGHTS_NAME)):
        return ()
    if INDEX_NAME in folder.files:
        await fetch_whole(folder, INDEX_NAME, INDEX_NBYTES)
    return [*_weights(folder), *_small_files(folder)]


def _small_files(folder: Folder) -> Sequence[str]:
    return [name for name in folder.files if name in _WHOLE or _is_small_pickle(name, folder.files[name])]


def _is_small_pickle(name: str, nbytes: int) -> bool:
    return name.endswith(ENDINGS) and nbytes <= HUB_PICKLE_NBYTES


def _weights(folder: Folder) -> Sequence[str]:
    """The files of weights of which the header is read, as read/adapter_files.py chooses them."""
    if SAFETENSORS_NAME in folder.files:
        return (SAFETENSORS_NAME,)
    if INDEX_NAME in folder.files:
        try:
            named = dict.fromkeys(read_index(folder.directory / INDEX_NAME).values())
        except Unreadable:  # which a rule says
            return ()
        return [name for name in named if is_local_name(name) and name in folder.files and name not in _WHOLE]
    return (WEIGHTS_NAME,) if WEIGHTS_NAME in folder.files else ()
