"""``s3://BUCKET[/PREFIX]`` and ``gs://BUCKET[/PREFIX]``: a directory of a bucket, as aws and gcloud write it.

What a bucket may be called: https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html and
https://docs.cloud.google.com/storage/docs/buckets#naming, which allows ``_`` and longer names with dots too.
"""

import re
from typing import Final, NamedTuple

from converter.errors import ConverterError
from converter.read.checkpoint import is_local_name
from converter.shell import as_typed

BUCKET_SCHEMES: Final = ("s3://", "gs://")
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", re.ASCII)


class BucketAddress(NamedTuple):
    """A prefix of a bucket's keys, taken as a directory; ``folder`` is "" for the whole bucket. ``scheme`` has ://."""

    scheme: str
    bucket: str
    folder: str = ""

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.scheme}{self.bucket}{self.folder and '/'}{self.folder}"

    def __truediv__(self, name: str) -> "BucketAddress":
        """What lies below."""
        return self._replace(folder=f"{self.folder}/{name}" if self.folder else name)

    @property
    def name(self) -> str:
        """As it may be given with --base."""
        return str(self)

    @property
    def lasting_name(self) -> str:
        """What names the adapter whatever lies there."""
        return str(self)

    @property
    def model(self) -> None:
        """The name of a model that it tells: none, as a directory's path tells none."""

    @property
    def label(self) -> str:
        """How messages call what lies there: as they would a directory."""
        return self.folder.rpartition("/")[2] or self.bucket

    def command_for(self, name: str) -> str:
        """The command that downloads a file from there, or the one that is there: that of the bucket's own tool."""
        tool = ("aws", "s3") if self.scheme == "s3://" else ("gcloud", "storage")
        return as_typed((*tool, "cp", str(self / name if name else self), "."))


def bucket_address(text: str) -> BucketAddress:
    """Read an address. Raises ConverterError, status 2, where it is none."""
    scheme, _, rest = text.partition("://")
    bucket, _, key = rest.partition("/")
    folder = key.removesuffix("/")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket:
        raise ConverterError(f"{text}: {bucket!r} is no name of a bucket, wanted {scheme}://BUCKET/PREFIX")
    if folder and not all(map(is_local_name, folder.split("/"))):
        raise ConverterError(f"{text}: {folder!r} is no prefix that could be a directory: an empty part, .., \\ or :")
    return BucketAddress(f"{scheme}://", bucket, folder)
