"""One bucket: what its list says of each object, and of those objects, as they were then, whole ones and parts.

Every answer is asked for by the object's ETag (If-Match): one that was replaced after it was listed ends the run, and
no file is put together of two. The service is trusted to keep to HTTP, as its SDKs trust it; what lies there is not.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from converter.errors import ConverterError
from converter.hub.bucket_refusals import in_plain_words
from converter.hub.bucket_store import Store, open_store
from converter.hub.client import Part
from converter.hub.loop import every
from converter.read.bucket_address import BucketAddress
from converter.read.limits import FILES, HUB_NBYTES

_LISTED_AT_ONCE: Final = 1000
_CHUNK_NBYTES: Final = 1_000_000
_PART_NBYTES: Final = 16_000_000  # what is asked for at once of a file that is kept
_PARTS_AT_ONCE: Final = 8
_ANSWER_SECONDS: Final = 30
_SLOWEST: Final = 50_000  # bytes a second, beside the seconds that any answer may take


class Object(NamedTuple):
    """What a bucket's list says of an object."""

    nbytes: int
    etag: str


class Bucket:
    """One bucket, for the length of one run: the objects that were listed, and no other."""

    def __init__(self, store: Store, objects: Mapping[str, Object]) -> None:
        """Of a store, with the objects in it by their keys."""
        self._store, self._objects = store, objects
        self._left = HUB_NBYTES

    @property
    def endpoint(self) -> str:
        """Where it is asked; "" for the service's own."""
        return self._store.endpoint

    def object(self, where: BucketAddress) -> Object:
        """What was listed."""
        return self._objects[where.folder]

    async def file(self, where: BucketAddress, nbytes: int, to: BinaryIO) -> None:
        """Write a whole object, which the list says has ``nbytes``."""
        self._spend(where, nbytes)
        if nbytes:
            await self._copy(where, Part(0, nbytes, nbytes), to)

    async def part(self, where: BucketAddress, part: Part, to: BinaryIO) -> None:
        """Write a part of an object, and not a byte more."""
        self._spend(where, part.end - part.begin)
        await self._copy(where, part, to)

    async def save(self, where: BucketAddress, path: Path, tell: Callable[[int], None]) -> None:
        """Write a whole object, of any size, to a new file, several parts of it at once.

        ``tell`` is called with each count of bytes that has come.
        """
        nbytes, at_once = self.object(where).nbytes, asyncio.Semaphore(_PARTS_AT_ONCE)
        with path.open("xb") as file:
            file.truncate(nbytes)

        async def one(begin: int) -> None:
            part = Part(begin, min(begin + _PART_NBYTES, nbytes), nbytes)
            async with at_once:
                with path.open("r+b") as file:
                    file.seek(begin)
                    await self._copy(where, part, file, share=_PARTS_AT_ONCE)
                tell(part.end - part.begin)

        await every(map(one, range(0, nbytes, _PART_NBYTES)))

    def _spend(self, where: BucketAddress, nbytes: int) -> None:
        self._left -= nbytes
        if self._left < 0:
            raise ConverterError(f"{where}: takes more than {HUB_NBYTES} bytes of the bucket; name one folder of it")

    async def _copy(self, where: BucketAddress, part: Part, to: BinaryIO, share: int = 1) -> None:
        """Write a part; of a line that is shared by so many it may take so much longer."""
        seconds = _ANSWER_SECONDS + share * (part.end - part.begin) / _SLOWEST
        n_written = 0
        with in_plain_words(where, self.endpoint, seconds):
            async with asyncio.timeout(seconds):
                answer = await self._asked(where, part)
                async for chunk in answer.stream(_CHUNK_NBYTES):
                    n_written += to.write(chunk)
        if n_written != part.end - part.begin:
            raise ConverterError(f"{where}: the bucket sent {n_written} of {part.end - part.begin} bytes; run it again")

    async def _asked(self, where: BucketAddress, part: Part) -> Any:
        """The answer, its body not yet read. Raises ConverterError where it is of another object than was listed."""
        import obstore

        wanted = self.object(where)
        options: Any = {"range": (part.begin, part.end), "if_match": wanted.etag}
        answer = await obstore.get_async(self._store.objects, where.folder, options=options)
        found = Object(answer.meta["size"], answer.meta["e_tag"] or "")
        if found != wanted or tuple(answer.range) != (part.begin, part.end):
            raise ConverterError(f"{where}: was replaced while it was read; run it again")
        return answer


async def open_bucket(address: BucketAddress) -> tuple[Bucket, Mapping[str, int]]:
    """The bucket of an address, and the size of each file below the address, by its path from there.

    Raises ConverterError where it can't be had, or more lies there than is listed.
    """
    store = open_store(address)
    with in_plain_words(address, store.endpoint, _ANSWER_SECONDS):
        objects = await _listed(store, address)
    above = f"{address.folder}/" if address.folder else ""
    below = {key.removeprefix(above): one.nbytes for key, one in objects.items() if key.startswith(above)}
    return Bucket(store, objects), below


async def _listed(store: Store, address: BucketAddress) -> Mapping[str, Object]:
    import obstore

    objects: dict[str, Object] = {}
    listing = obstore.list(store.objects, address.folder or None, chunk_size=_LISTED_AT_ONCE)
    async for chunk in listing:
        for one in chunk:
            if not one["e_tag"]:
                raise ConverterError(
                    f"{address}: the bucket lists {one['path']!r} without an ETag, by which it is read"
                )
            objects[one["path"]] = Object(one["size"], one["e_tag"])
        if len(objects) > FILES:
            raise ConverterError(f"{address}: holds more than {FILES} files; name one folder of it: {address}/FOLDER")
    return objects
