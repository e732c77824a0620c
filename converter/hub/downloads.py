"""A base or an adapter of a hub into the hub's cache: the files that are needed, whole, by huggingface_hub.

It puts a file there when it has all of it. Of a base config.json comes last, so that no half of one is taken for one.
What lies in a bucket goes into a cache of ours in the same way (bucket_cache.py).
"""

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from converter.errors import NOTHING_LOOKED_AT, ConverterError
from converter.hub.adapters import wanted_files
from converter.hub.bases import CONFIG_NAME, INDEX_NAME, SMALL_FILES, base_weights, require_base
from converter.hub.bucket import Bucket
from converter.hub.bucket_cache import Tell, keep
from converter.hub.client import Source
from converter.hub.fetching import AT_ONCE, Folder, ask_hub, fetch_whole
from converter.hub.originals import original_repository
from converter.hub.quiet import quiet
from converter.read.base_files import read_base_files
from converter.read.hub_address import Address, HubAddress
from converter.scratch import Scratch


class _Wanted(NamedTuple):
    """Files of one commit, or of a bucket, in the order in which they are to come."""

    of: Source
    commit: str
    names: Sequence[str]


def _silent(_done: int, _of: int) -> None:
    """Tell nothing."""


def download_base(address: Address, tell: Tell = _silent) -> Path:
    """The directory of the base in the hub's cache, with its weights, of which what isn't there yet is fetched.

    ``tell`` is called while the files of a bucket come: bytes, of how many.

    Raises ConverterError, status 2, where it can't be had, or holds no weights that a model can be merged with.
    """
    with Scratch() as scratch:
        wanted = ask_hub(address, partial(_of_base, place=scratch.path))
    return _kept(address, wanted, tell)


def download_adapter(address: Address, tell: Tell = _silent) -> Path:
    """The directory of the adapter in the hub's cache, with its numbers. Raises as ``download_base``; 3 where none."""
    with Scratch() as scratch:
        wanted = ask_hub(address, partial(_of_adapter, place=scratch.path))
    return _kept(address, wanted, tell)


def _kept(address: Address, wanted: _Wanted, tell: Tell) -> Path:
    if isinstance(address, HubAddress):
        return _downloaded(address, wanted)
    assert isinstance(wanted.of, Bucket)  # noqa: S101  which ask_hub gave
    return keep(wanted.of, address, wanted.names, tell)


async def _of_base(hub: Source, address: Address, files: Mapping[str, int], *, place: Path) -> _Wanted:
    require_base(address, files)
    folder = Folder(hub, address, files, place, asyncio.Semaphore(AT_ONCE))
    for name in (CONFIG_NAME, INDEX_NAME):
        if name in files:
            await fetch_whole(folder, name, SMALL_FILES[name])
    weights = base_weights(folder)
    _require_weights(address, place, weights)
    small = [name for name in SMALL_FILES if name in files and name != CONFIG_NAME]
    return _Wanted(hub, _commit(address), [*weights, *small, CONFIG_NAME])


def _commit(address: Address) -> str:
    return address.revision if isinstance(address, HubAddress) else ""


def _require_weights(address: Address, place: Path, weights: Sequence[str]) -> None:
    """Refuse, before it is downloaded, what no rule would let pass."""
    from converter.derive.base_model import quantization

    (place / INDEX_NAME).unlink(missing_ok=True)  # whose shards aren't here
    files = read_base_files(place)
    quantised = quantization(getattr(files, "config", {}))
    if quantised:
        original = original_repository(address.label)
        which = f" ({original}, by its name)" if original else ""
        wanted = f"wanted the original weights{which} or a GGUF"
        raise ConverterError(f"{address}: is quantised by {quantised}, {wanted}; nothing was downloaded")
    if not weights:
        raise ConverterError(f"{address}: holds no weights in safetensors; save the model again with save_pretrained")


async def _of_adapter(hub: Source, address: Address, files: Mapping[str, int], *, place: Path) -> _Wanted:
    own = {name: size for name, size in files.items() if "/" not in name}
    folder = Folder(hub, address, own, place, asyncio.Semaphore(AT_ONCE))
    names = await wanted_files(folder)
    if not names:
        raise ConverterError(f"{address}: no adapter there (no adapter_config.json)", status=NOTHING_LOOKED_AT)
    return _Wanted(hub, _commit(address), names)


def _downloaded(address: HubAddress, wanted: _Wanted) -> Path:
    """Where the files are in the cache. By the revision that was asked for: the cache then knows that, too."""
    from huggingface_hub import hf_hub_download

    paths = []
    with quiet(bars=sys.stderr.isatty()):  # bars on a terminal alone
        for name in wanted.names:
            where = address / name
            with _told(where):
                paths.append(Path(hf_hub_download(address.repository, where.folder, revision=address.revision)))
    for path in paths:
        if wanted.commit not in path.parts:
            raise ConverterError(f"{address}: has moved to another commit while it was downloaded; run it again")
    return paths[0].parent


@contextmanager
def _told(where: HubAddress) -> Iterator[None]:
    """Make a ConverterError, status 2, of what ends a download: without addresses, which may be signed."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    again = "; nothing of it is kept, run it again"
    try:
        yield
    except HfHubHTTPError as error:
        raise ConverterError(f"{where}: the hub answers with status {error.response.status_code}{again}") from error
    except httpx2.HTTPError as error:
        raise ConverterError(f"{where}: the connection to the hub broke ({type(error).__name__}){again}") from error
    except OSError as error:
        why = error.strerror or f"the connection to the hub broke ({type(error).__name__})"
        raise ConverterError(f"{where}: couldn't be downloaded: {why}{again}") from error
