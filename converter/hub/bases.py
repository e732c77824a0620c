"""A base on a hub, as far as a judgement and a LoRA file need it: small files whole, of the weights headers and norms.

The norms are a thousandth of the weights and all of the base's fingerprint, which tells it from another one of the same
shapes.
"""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from io import BytesIO
from typing import Final, NamedTuple

from converter.derive.base_model import BaseModel, read_base_model
from converter.derive.chat_defaults import GENERATION_CONFIG_NAME
from converter.errors import ConverterError
from converter.fingerprint import digest_of_norms, stored_norms
from converter.hub.client import Part, Source
from converter.hub.fetching import AT_ONCE, Folder, ask_hub, fetch_header, fetch_whole
from converter.hub.loop import every
from converter.hub.originals import original_repository
from converter.read.checkpoint import is_local_name, read_index
from converter.read.files import Unreadable
from converter.read.hub_address import Address, OnHub
from converter.read.limits import CONFIG_NBYTES, INDEX_NBYTES, TOKENIZER_NBYTES
from converter.read.stored import StoredTensor
from converter.read.tokenizer import TOKENIZER_FILES
from converter.scratch import Scratch

CONFIG_NAME: Final = "config.json"
WEIGHTS_NAME: Final = "model.safetensors"
INDEX_NAME: Final = "model.safetensors.index.json"
# What a conversion and a proof read whole, and how much of it.
SMALL_FILES: Final[Mapping[str, int]] = {
    INDEX_NAME: INDEX_NBYTES,
    GENERATION_CONFIG_NAME: CONFIG_NBYTES,
    **dict.fromkeys(TOKENIZER_FILES, TOKENIZER_NBYTES),
    CONFIG_NAME: CONFIG_NBYTES,
}


class _Fetched(NamedTuple):
    address: Address
    sizes: Mapping[str, int]
    base: BaseModel


def read_base_on_hub(address: Address) -> BaseModel:
    """Read the base at an address without its weights; with its fingerprint, where it has one.

    Raises ConverterError, status 2, where there is none, where the hub can't be asked, or its answers don't hold.
    """
    place = Scratch()
    try:
        return ask_hub(address, partial(_base, place=place))
    except OSError as error:
        place.close()
        raise ConverterError(f"{address}: can't be kept in {place.path}: {error.strerror or error}") from error
    except BaseException:
        place.close()
        raise


async def _base(hub: Source, address: Address, files: Mapping[str, int], *, place: Scratch) -> BaseModel:
    require_base(address, files)
    folder = Folder(hub, address, files, place.path, asyncio.Semaphore(AT_ONCE))
    await every(fetch_whole(folder, name, limit) for name, limit in SMALL_FILES.items() if name in files)
    weights = base_weights(folder)
    await every(fetch_header(folder, name) for name in weights)
    sizes = {name: files[name] for name in weights}
    base = read_base_model(place.path, sizes, on_hub=OnHub(address, (), place))
    norms = await every(_norm(folder, stored) for stored in stored_norms(base))
    numbers = dict(zip(stored_norms(base), norms, strict=True))
    return replace(base, norms_digest=digest_of_norms(base, numbers.__getitem__))


async def _norm(folder: Folder, stored: StoredTensor) -> bytes:
    name, raw = stored.path.name, BytesIO()
    part = Part(stored.offset, stored.offset + stored.nbytes, folder.files[name])
    if not 0 <= part.begin < part.end <= part.nbytes:
        raise ConverterError(f"{folder.address / name}: its header says that it ends after {part.end} bytes, not so")
    async with folder.one_of:
        await folder.hub.part(folder.address / name, part, raw)
    return raw.getvalue()


def base_weights(folder: Folder) -> Sequence[str]:
    """The files of weights, as read/base_files.py chooses them; none where there are none that are safetensors."""
    index = None if WEIGHTS_NAME in folder.files or INDEX_NAME not in folder.files else folder.directory / INDEX_NAME
    try:
        return shard_names(folder.files, read_index(index).values() if index else ())
    except Unreadable as error:
        raise ConverterError(f"{folder.address / INDEX_NAME}: {error}") from error


def shard_names(files: Iterable[str], indexed: Iterable[str]) -> Sequence[str]:
    """The files of weights among ``files``; ``indexed`` are those that an index names. Raises Unreadable."""
    if WEIGHTS_NAME in files:
        return (WEIGHTS_NAME,)
    names = sorted({*indexed})
    for name in names:
        if not is_local_name(name) or name not in files or not name.endswith(".safetensors"):
            raise Unreadable(f"names the shard {name!r}, which isn't there")
    return names


def require_base(address: Address, files: Collection[str]) -> None:
    """Refuse what holds no Hugging Face model; of GGUFs say how to get one."""
    if CONFIG_NAME in files:
        return
    is_gguf = not files and address.folder.endswith(".gguf")  # an object has nothing below it
    gguf = "" if is_gguf else next((name for name in files if name.endswith(".gguf")), None)
    if gguf is None:
        raise ConverterError(f"{address}: no config.json; wanted a Hugging Face model")
    original = original_repository(address.label)
    other = f"; or give the original with --base ({original}, by its name)" if original else ""
    what = "is a GGUF" if is_gguf else "holds GGUFs and no config.json"
    raise ConverterError(
        f"{address}: {what}; download the one that you serve (`{address.command_for(gguf)}`), and give its path{other}"
    )
