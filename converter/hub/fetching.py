"""What of a hub is fetched into a private directory: small files whole, of weights the headers.

A file of weights ends behind its header there, so that whoever asks for its numbers gets an error and never zeros, as a
sparse file of the right size would give.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from converter.errors import ConverterError, how_to_install
from converter.hub.bucket import open_bucket
from converter.hub.client import Hub, Part, Source
from converter.hub.listing import at_its_commit, listed_files
from converter.hub.loop import Result, run
from converter.read.bucket_address import BucketAddress
from converter.read.checkpoint import is_local_name
from converter.read.files import START_NBYTES
from converter.read.hub_address import Address, HubAddress
from converter.read.limits import HEADER_NBYTES, HUB_SECONDS
from converter.version import __version__

AT_ONCE: Final = 8
_START_NBYTES: Final = 64_000  # holds the header of some 500 tensors, which is the usual number
_NAME_NBYTES: Final = 255  # of most file systems

Work = Callable[[Source, Address, Mapping[str, int]], Coroutine[Any, Any, Result]]


def ask_hub(address: Address, work: Work[Result]) -> Result:
    """The result of some work, which is given the hub, the address with its commit, and the sizes of the files there.

    Of a bucket it is given that, and the address as it is. Raises ConverterError, status 2, where the hub or the bucket
    can't be asked or its answers don't hold.
    """
    return run(_in_bucket(address, work) if isinstance(address, BucketAddress) else _on_hub(address, work))


async def _in_bucket(address: BucketAddress, work: Work[Result]) -> Result:
    with _not_for_ever(address):
        async with asyncio.timeout(HUB_SECONDS):
            bucket, files = await open_bucket(address)
            return await work(bucket, address, files)


@contextmanager
def _not_for_ever(address: Address) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise ConverterError(f"{address}: took longer than {HUB_SECONDS} s; try again later") from error


async def _on_hub(address: HubAddress, work: Work[Result]) -> Result:
    constants, client, headers = _of_library(address)
    async with client:
        # A hook of huggingface_hub's reads what a refusal says, and would unpack it, however large that gets.
        client.event_hooks = {"request": client.event_hooks["request"], "response": []}
        try:
            hub = Hub(client, headers, constants.ENDPOINT, constants.HF_HUB_DOWNLOAD_TIMEOUT)
        except ValueError as error:
            raise ConverterError(f"{address}: HF_ENDPOINT is no address: {error}") from error
        with _not_for_ever(address):
            async with asyncio.timeout(HUB_SECONDS):
                address = await at_its_commit(hub, address)
                return await work(hub, address, await listed_files(hub, address))


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


def require_names(path: str, address: Address) -> None:
    """Refuse a path of which no repository has the like, and which could lead out of our own directory."""
    if not all(is_local_name(name) and len(os.fsencode(name)) <= _NAME_NBYTES for name in path.split("/")):
        raise ConverterError(f"{address}: lists a file with an impossible name, {path[:100]!r}")


class Folder(NamedTuple):
    """A folder of a hub or a bucket with the sizes of its files, and the directory here that they go to."""

    hub: Source
    address: Address
    files: Mapping[str, int]
    directory: Path
    one_of: asyncio.Semaphore


async def fetch_whole(folder: Folder, name: str, limit: int) -> None:
    """Fetch a whole file, of at most ``limit`` bytes. Raises ConverterError where the hub says that it has more."""
    if folder.files[name] > limit:
        raise ConverterError(
            f"{folder.address / name}: has {folder.files[name]} bytes there (at most {limit} are read)"
        )
    async with folder.one_of:
        with _new(folder, name) as file:
            await folder.hub.file(folder.address / name, folder.files[name], file)


async def fetch_header(folder: Folder, name: str) -> None:
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


def _new(folder: Folder, name: str) -> BinaryIO:
    require_names(name, folder.address)
    return (folder.directory / name).open("x+b")
