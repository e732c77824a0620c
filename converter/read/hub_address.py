"""``hf://ORG/NAME[@REVISION][/FOLDER]``: where an adapter lies on a model hub, as huggingface_hub's own URIs say it.

Grammar: https://huggingface.co/docs/huggingface_hub/package_reference/hf_uris. Without a revision it is ``main``; one
with a slash is written with %2F, but for ``refs/pr/N``.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from converter.errors import ConverterError
from converter.read.bucket_address import BUCKET_SCHEMES, BucketAddress, bucket_address
from converter.read.checkpoint import is_local_name
from converter.shell import as_typed

SCHEME: Final = "hf://"
SCHEMES: Final = (SCHEME, *BUCKET_SCHEMES)
_FORM: Final = re.compile(r"([^/@]+/[^/@]+)(?:@(refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(.*))?", re.DOTALL)
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_OTHER_KINDS: Final = ("datasets/", "spaces/", "kernels/", "buckets/")
_REVISION_LENGTH: Final = 255  # Git's own, of a file system's


class HubAddress(NamedTuple):
    """A directory of a repository at one revision; ``folder`` is "" for the repository's root."""

    repository: str
    revision: str
    folder: str = ""

    def __str__(self) -> str:
        """As it is written; of a pull request with its slashes."""
        revision = quote(self.revision, safe="/" if self.revision.startswith("refs/") else "")
        return f"{SCHEME}{self.repository}@{revision}{self.folder and '/'}{self.folder}"

    def __truediv__(self, name: str) -> "HubAddress":
        """What lies below."""
        return self._replace(folder=f"{self.folder}/{name}" if self.folder else name)

    @property
    def name(self) -> str:
        """As it may be given with --base, the usual revision left out."""
        return str(self).removeprefix(SCHEME).replace("@main", "", 1)

    @property
    def lasting_name(self) -> str:
        """What names the adapter at every revision."""
        return f"{SCHEME}{self.repository}{self.folder and '/'}{self.folder}"

    @property
    def model(self) -> str:
        """The name of a model that it tells."""
        return self.repository

    @property
    def label(self) -> str:
        """How messages call what lies there."""
        return self.repository

    def command_for(self, name: str) -> str:
        """The command that downloads a file of the repository: huggingface_hub's own."""
        return as_typed(("hf", "download", self.repository, name))


Address = HubAddress | BucketAddress


def remote_address(text: str) -> Address:
    """Read an address of either kind. Raises ConverterError, status 2, where it is none."""
    return bucket_address(text) if text.startswith(BUCKET_SCHEMES) else hub_address(text)


def hub_address(text: str) -> HubAddress:
    """Read an address. Raises ConverterError, status 2, where it is none."""
    found = _FORM.fullmatch(text.removeprefix(SCHEME))
    if found is None or text.startswith(tuple(SCHEME + kind for kind in _OTHER_KINDS)):
        raise ConverterError(f"{text}: is no adapter's address, wanted hf://ORG/NAME, @REVISION or /FOLDER behind it")
    repository, revision, folder = found[1], unquote(found[2] or "main"), (found[3] or "").strip("/")
    if not _REPOSITORY.fullmatch(repository) or ".." in repository or "--" in repository:
        raise ConverterError(f"{text}: {repository!r} is no name of a repository, wanted ORG/NAME")
    if not revision.isprintable() or ".." in revision or len(revision) > _REVISION_LENGTH:
        raise ConverterError(f"{text}: {revision!r} is no revision, wanted a branch, a tag or a commit")
    if folder and not all(map(is_local_name, folder.split("/"))):
        raise ConverterError(f"{text}: {folder!r} is no folder of a repository")
    return HubAddress(repository, revision, folder)


class OnHub(NamedTuple):
    """Of an adapter or a base on a hub, or in a bucket: its address, with the commit, and what of it is here.

    ``unread`` are the files beside it that were listed and not fetched. ``place`` keeps the directory with what was.
    """

    address: Address
    unread: tuple[str, ...]
    place: object
