"""What was downloaded of buckets, in a directory of ours: ~/.cache/adapter-to-gguf, or below XDG_CACHE_HOME.

A directory there is of one address and one state of every file in it: its name is a digest of the endpoint, the
address, and each file's name, size and ETag. A file appears in it when all of it has come, and isn't fetched again.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from converter.errors import ConverterError
from converter.hub.bucket import Bucket, Object
from converter.hub.fetching import require_names
from converter.hub.loop import run
from converter.read.bucket_address import BucketAddress
from converter.scratch import Scratch

Tell = Callable[[int, int], None]  # bytes that are here, of how many


def keep(bucket: Bucket, address: BucketAddress, names: Sequence[str], tell: Tell) -> Path:
    """The directory with these files of an address, of which what isn't there yet is fetched, in that order.

    Raises ConverterError, status 2, where a file can't be had or kept.
    """
    for name in names:
        require_names(name, address)
    objects = {name: bucket.object(address / name) for name in names}
    directory = _place(address, bucket.endpoint, objects)
    count = _Count(tell, sum(one.nbytes for one in objects.values()))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with Scratch(_root()) as scratch:
            for name, one in objects.items():
                if _is_whole(directory / name, one):
                    count(one.nbytes)
                    continue
                run(bucket.save(address / name, scratch.path / name, count))
                (scratch.path / name).replace(directory / name)
    except OSError as error:
        raise ConverterError(f"{address}: can't be kept in {directory}: {error.strerror or error}") from error
    return directory


class _Count:
    def __init__(self, tell: Tell, of: int) -> None:
        self._tell, self._done, self._of = tell, 0, of

    def __call__(self, nbytes: int) -> None:
        self._done += nbytes
        self._tell(self._done, self._of)


def _place(address: BucketAddress, endpoint: str, objects: Mapping[str, Object]) -> Path:
    """Where these files are kept; the last part is called as at the address, since files are named after it."""
    known = json.dumps([endpoint, str(address), sorted((name, *one) for name, one in objects.items())])
    digest = sha256(known.encode()).hexdigest()[:32]
    return _root() / "buckets" / address.scheme.removesuffix("://") / address.bucket / digest / address.label


def _is_whole(path: Path, listed: Object) -> bool:
    return path.is_file() and path.stat().st_size == listed.nbytes


def _root() -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    home = os.path.expanduser("~")  # noqa: PTH111  Path's raises where there is none, and this makes a relative path
    return (Path(given) if given else Path(home) / ".cache") / "adapter-to-gguf"
