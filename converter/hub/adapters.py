"""The adapters at an address of a hub: their small files whole, of their weights the headers, and nothing else.

They are put into a private directory, where all that reads adapters reads them as it reads any other. What wasn't
fetched isn't there: a file of weights ends behind its header, so that whoever asks for its numbers gets an error and
never zeros, as a sparse file of the right size would give; its true size is handed over beside it. Of a file that the
rules know by its name alone there is the name.
"""

import asyncio
import os
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO, Final, NamedTuple, TypeVar

from converter.derive.adapter import Adapter, read_adapter
from converter.derive.pickles import ENDINGS
from converter.errors import NOTHING_LOOKED_AT, ConverterError, how_to_install
from converter.fingerprint import RECORD_NAME
from converter.hub.client import Hub, Part
from converter.hub.listing import at_its_commit, listed_files
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
from converter.read.files import START_NBYTES, Unreadable
from converter.read.hub_address import HubAddress, OnHub
from converter.read.limits import (
    CONFIG_NBYTES,
    HEADER_NBYTES,
    HUB_PICKLE_NBYTES,
    HUB_SECONDS,
    INDEX_NBYTES,
    RECORD_NBYTES,
    TOKENIZER_NBYTES,
)
from converter.read.mlx_config import WEIGHTS_NAME
from converter.read.tokenizer import TOKENIZER_FILES
from converter.scratch import Scratch
from converter.version import __version__

# What the rules read whole, and how much of it.
_WHOLE: Final[Mapping[str, int]] = {
    CONFIG_NAME: CONFIG_NBYTES,
    INDEX_NAME: INDEX_NBYTES,
    RECORD_NAME: RECORD_NBYTES,
    **dict.fromkeys(TOKENIZER_FILES, TOKENIZER_NBYTES),
}
_MARKS: Final = (CONFIG_NAME, SAFETENSORS_NAME, INDEX_NAME, PICKLE_NAME)  # by which an adapter is found
_START_NBYTES: Final = 64_000  # holds the header of some 500 tensors, which is the usual number
_AT_ONCE: Final = 8
_NAME_NBYTES: Final = 255  # of most file systems

Result = TypeVar("Result")


class _Fetched(NamedTuple):
    """One adapter as far as it is here: what can be read of each file, its true size, and what wasn't fetched."""

    directory: Path
    address: HubAddress
    sizes: Mapping[str, int]
    unread: tuple[str, ...]


def read_adapters_on_hub(address: HubAddress) -> tuple[Adapter, ...]:
    """Read the adapters that an address stands for, as ``find_adapters`` says it of a path; without their numbers.

    Raises ConverterError: status 3 where there is none, 2 where the hub can't be asked or its answers don't hold.
    """
    place = Scratch()  # goes with the last adapter that lies in it
    try:
        return tuple(
            read_adapter(one.directory, one.sizes, on_hub=OnHub(one.address, one.unread, place))
            for one in _run(_fetched(address, place.path))
        )
    except OSError as error:
        place.close()
        raise ConverterError(f"{address}: can't be kept in {place.path}: {error.strerror or error}") from error
    except BaseException:
        place.close()
        raise


def read_adapter_on_hub(address: HubAddress) -> Adapter:
    """Read the adapter at an address, or the only one below it. Raises as ``read_adapters_on_hub``, and at several."""
    adapters = read_adapters_on_hub(address)
    here = [one for one in adapters if one.on_hub and one.on_hub.address.folder == address.folder] or adapters
    if len(here) > 1:
        names = ", ".join(str(one.on_hub.address) for one in here[:3] if one.on_hub)
        raise ConverterError(f"{address}: holds {len(here)} adapters ({names}, ...); give one of them")
    return here[0]


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """The result of some work, done by a loop in a thread of its own.

    This thread may have a loop already, as in a notebook; and Ctrl-C or SIGTERM, which end it wherever it is, must end
    the work's tasks in order.
    """
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    done = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return done.result()
    finally:
        done.cancel()
        asyncio.run_coroutine_threadsafe(_others(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _others() -> None:
    """Wait for all other tasks of this loop."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)


async def _fetched(address: HubAddress, place: Path) -> Sequence[_Fetched]:
    """Fetch what the rules read of every adapter at an address."""
    constants, client, headers = _of_library(address)
    async with client:
        # A hook of huggingface_hub's reads what a refusal says, and would unpack it, however large that gets.
        client.event_hooks = {"request": client.event_hooks["request"], "response": []}
        try:
            hub = Hub(client, headers, constants.ENDPOINT, constants.HF_HUB_DOWNLOAD_TIMEOUT)
        except ValueError as error:
            raise ConverterError(f"{address}: HF_ENDPOINT is no address: {error}") from error
        try:
            async with asyncio.timeout(HUB_SECONDS):
                return await _all(hub, address, place)
        except TimeoutError as error:
            raise ConverterError(f"{address}: took longer than {HUB_SECONDS} s; try again later") from error


def _of_library(address: HubAddress) -> tuple[Any, Any, Mapping[str, str]]:
    """huggingface_hub's settings, a client of its, and the headers to send. Raises ConverterError without it.

    Not by its ``build_hf_headers``: for the name of the program that calls us that asks the endpoint for a list, of any
    length, and keeps it in the cache.
    """
    try:
        import httpx2  # noqa: F401  its errors are told apart
        from huggingface_hub import constants, get_async_session, get_token
    except ImportError as error:
        raise ConverterError(
            f"{address}: needs {error.name}, which is not installed; {how_to_install('hub')}"
        ) from error
    except ValueError as error:  # huggingface_hub looks at the endpoint when it is imported
        raise ConverterError(f"{address}: HF_ENDPOINT is no address: {error}") from error
    if constants.is_offline_mode():
        raise ConverterError(f"{address}: HF_HUB_OFFLINE is set, and hf:// needs the network; unset it, or give a path")
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    if token and not (token.isascii() and token.isprintable()):
        raise ConverterError(f"{address}: the token in HF_TOKEN is none: it holds characters that no token has")
    own = {"user-agent": f"adapter-to-gguf/{__version__}"}
    return constants, get_async_session(), {**own, "authorization": f"Bearer {token}"} if token else own


async def _all(hub: Hub, address: HubAddress, place: Path) -> Sequence[_Fetched]:
    address = await at_its_commit(hub, address)
    files = await listed_files(hub, address)
    one_of = asyncio.Semaphore(_AT_ONCE)
    found = [*_folders(files, address, place / "listed")]
    if not found:
        raise ConverterError(f"{address}: holds no adapter (no {CONFIG_NAME})", status=NOTHING_LOOKED_AT)
    own: dict[str, dict[str, int]] = {folder: {} for folder in found}
    for path, size in files.items():
        folder, _, name = path.rpartition("/")
        if folder in own:
            own[folder][name] = size
    folders = [
        _Folder(hub, address / folder if folder else address, own[folder], place / str(i), one_of)
        for i, folder in enumerate(found)
    ]
    return await _every(map(_adapter, folders))


def _folders(files: Mapping[str, int], address: HubAddress, place: Path) -> Iterator[str]:
    """The folders that hold the adapters: told by the one that tells it of directories, over empty files."""
    place.mkdir()
    for path in files:
        *above, name = path.split("/")
        if name in _MARKS and len(above) <= MAX_DEPTH:
            _require_names(path, address)
            (place / "/".join(above)).mkdir(parents=True, exist_ok=True)
            (place / path).touch()
    for directory in find_adapters(place).adapters:
        found = directory.relative_to(place).as_posix()
        yield "" if found == "." else found


def _require_names(path: str, address: HubAddress) -> None:
    """Refuse a path of which no repository has the like, and which could lead out of our own directory."""
    if not all(is_local_name(name) and len(os.fsencode(name)) <= _NAME_NBYTES for name in path.split("/")):
        raise ConverterError(f"{address}: the hub lists a file with an impossible name, {path[:100]!r}")


async def _every(work: Iterable[Coroutine[Any, Any, Result]]) -> Sequence[Result]:
    """The results of all; where one fails, its error, and the others are ended."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


# --- One adapter ------------------------------------------------------------------------------------------------------


class _Folder(NamedTuple):
    """A folder of a hub that holds an adapter, and the directory here that its files go to."""

    hub: Hub
    address: HubAddress
    files: Mapping[str, int]
    directory: Path
    one_of: asyncio.Semaphore


async def _adapter(folder: _Folder) -> _Fetched:
    folder.directory.mkdir()
    whole = [name for name in folder.files if name in _WHOLE or _is_small_pickle(name, folder.files[name])]
    for name in whole:
        if folder.files[name] > _WHOLE.get(name, HUB_PICKLE_NBYTES):
            raise ConverterError(
                f"{folder.address / name}: has {folder.files[name]} bytes on the hub (at most {_WHOLE[name]} are read)"
            )
    await _every(_whole(folder, name) for name in whole)
    weights = _weights(folder)
    await _every(_header(folder, name) for name in weights)
    known_by_name = [
        name for name in folder.files if name not in {*whole, *weights} and name.endswith((*ENDINGS, *WEIGHT_ENDINGS))
    ]
    for name in known_by_name:
        _require_names(name, folder.address)
        (folder.directory / name).touch()
    sizes = {name: folder.files[name] for name in weights}
    return _Fetched(folder.directory, folder.address, sizes, tuple(known_by_name))


def _is_small_pickle(name: str, nbytes: int) -> bool:
    return name.endswith(ENDINGS) and nbytes <= HUB_PICKLE_NBYTES


def _weights(folder: _Folder) -> Sequence[str]:
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


async def _whole(folder: _Folder, name: str) -> None:
    async with folder.one_of:
        with _new(folder, name) as file:
            await folder.hub.file(folder.address / name, folder.files[name], file)


async def _header(folder: _Folder, name: str) -> None:
    """Fetch the header of a file of weights: of what is none the beginning, which tells a reader what it is."""
    where, nbytes = folder.address / name, folder.files[name]
    n_start = min(_START_NBYTES, nbytes)
    async with folder.one_of:
        with _new(folder, name) as file:
            if n_start:
                await folder.hub.part(where, Part(0, n_start, nbytes), file)
            file.seek(0)
            length = file.read(8)
            end = 8 + int.from_bytes(length, "little")
            if len(length) < 8 or end > min(nbytes, 8 + HEADER_NBYTES):
                end = min(START_NBYTES, n_start)
            file.truncate(min(end, n_start))
            if end > n_start:
                file.seek(0, os.SEEK_END)
                await folder.hub.part(where, Part(n_start, end, nbytes), file)


def _new(folder: _Folder, name: str) -> BinaryIO:
    _require_names(name, folder.address)
    return (folder.directory / name).open("x+b")
