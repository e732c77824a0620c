"""Requests to a hub: huggingface_hub's client and token, and a bound on what each answer may cost.

- The token goes to the endpoint alone (HF_ENDPOINT), never to the storage that it redirects to.
- An answer is taken as it is sent: no compression, so that its length is known before the first byte.
- An answer of another length, of another part of a file or of another commit than was asked for ends the run: what is
  judged is what the hub says it holds, or nothing.
- A wait for a byte ends after HF_HUB_DOWNLOAD_TIMEOUT; an answer that comes drop by drop, its head too, when it took
  longer than a slow line would.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, Protocol
from urllib.parse import quote, urljoin, urlsplit

from converter.errors import ConverterError
from converter.hub.refusals import in_other_words, refuse_status
from converter.read.hub_address import HubAddress
from converter.read.limits import HUB_NBYTES

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

_REDIRECTS: Final = 5
_SLOWEST: Final = 50_000  # bytes a second, beside the seconds that any answer may take
_ANSWER_SECONDS: Final = 30


class Part(NamedTuple):
    """Bytes of a file: from ``begin`` up to ``end``, of ``nbytes`` in all."""

    begin: int
    end: int
    nbytes: int

    @property
    def as_range(self) -> str:
        """As a request asks for it."""
        return f"bytes={self.begin}-{self.end - 1}"

    @property
    def as_content_range(self) -> str:
        """As an answer has to say it: https://www.rfc-editor.org/rfc/rfc9110#section-14.4."""
        return f"bytes {self.begin}-{self.end - 1}/{self.nbytes}"


class Source(Protocol):
    """What files are fetched of: a hub or a bucket, of its own kind of address."""

    async def file(self, where: Any, nbytes: int, to: BinaryIO) -> None:
        """Write a whole file, which has ``nbytes``."""

    async def part(self, where: Any, part: Part, to: BinaryIO) -> None:
        """Write a part of a file, and not a byte more."""


class Hub:
    """One repository of a hub, for the length of one run."""

    def __init__(self, client: "AsyncClient", headers: Mapping[str, str], endpoint: str, timeout: float) -> None:
        """Of an endpoint, with the headers for it, the token's among them. Raises ValueError where it is no address."""
        self._origin = _origin(endpoint)
        self._client, self._headers, self._endpoint, self._timeout = client, headers, endpoint, timeout
        self._left = HUB_NBYTES

    async def json(self, path: str, where: HubAddress, limit: int) -> tuple[bytes, Mapping[str, str]]:
        """The answer of the hub's API, of at most ``limit`` bytes, and its headers."""
        async with self._answer(f"{self._endpoint}/api/models/{path}", {}, where, limit) as response:
            self._require(response, where, 200)
            data = b"".join([chunk async for chunk in self._chunks(response, where, limit)])
            return data, response.headers

    async def file(self, where: HubAddress, nbytes: int, to: BinaryIO) -> None:
        """Write a whole file, which the hub says has ``nbytes``."""
        async with self._answer(self._url(where), {}, where, nbytes) as response:
            self._require(response, where, 200)
            await self._copied(response, where, nbytes, to)

    async def part(self, where: HubAddress, part: Part, to: BinaryIO) -> None:
        """Write a part of a file, and not a byte more."""
        headers = {"Range": part.as_range}
        async with self._answer(self._url(where), headers, where, part.nbytes, part.end - part.begin) as response:
            self._require(response, where, 206)
            stated = response.headers.get("Content-Range", "")
            if stated.strip().lower() != part.as_content_range:
                raise ConverterError(
                    f"{where}: the hub answered with the part {stated!r}, wanted {part.as_content_range!r}; "
                    "what it sent isn't read"
                )
            await self._copied(response, where, part.end - part.begin, to)

    def _url(self, where: HubAddress) -> str:
        return f"{self._endpoint}/{where.repository}/resolve/{where.revision}/{quote(where.folder)}"

    @asynccontextmanager
    async def _answer(
        self, url: str, headers: Mapping[str, str], where: HubAddress, nbytes: int, n_wanted: int | None = None
    ) -> AsyncIterator["Response"]:
        """The answer behind the redirects, its body not yet read; of a file that has ``nbytes``."""
        seconds = _ANSWER_SECONDS + (nbytes if n_wanted is None else n_wanted) / _SLOWEST
        is_file = url.startswith(self._url(where))
        with in_other_words(where, self._endpoint, self._timeout, seconds):
            async with asyncio.timeout(seconds):
                for _ in range(_REDIRECTS):
                    async with self._client.stream(
                        "GET", url, headers={**self._own_headers(url), **headers}, **self._options
                    ) as response:
                        if is_file and self._is_own(url):
                            _require_same(response, where, nbytes)
                        if not response.has_redirect_location:
                            yield response
                            return
                        url = _next(url, response, where)
                raise ConverterError(f"{where}: the hub redirects more than {_REDIRECTS} times")

    @property
    def _options(self) -> dict[str, Any]:
        return {"follow_redirects": False, "timeout": self._timeout}

    def _own_headers(self, url: str) -> dict[str, str]:
        """The request's headers; for a host that isn't the hub without the token."""
        headers = self._headers if self._is_own(url) else {k: v for k, v in self._headers.items() if k == "user-agent"}
        return {**headers, "Accept-Encoding": "identity"}

    def _is_own(self, url: str) -> bool:
        return _origin(url) == self._origin

    def _require(self, response: "Response", where: HubAddress, status: int) -> None:
        if response.status_code != status:
            refuse_status(response, where, by_hub=self._is_own(str(response.request.url)))

    async def _copied(self, response: "Response", where: HubAddress, nbytes: int, to: BinaryIO) -> None:
        """Write the body, which has to have just so many bytes."""
        stated = response.headers.get("Content-Length")
        if stated is not None and stated != str(nbytes):
            raise ConverterError(f"{where}: the hub sends {stated} bytes, wanted {nbytes}; nothing of it is read")
        n_written = 0
        async for chunk in self._chunks(response, where, nbytes):
            n_written += to.write(chunk)
        if n_written != nbytes:
            raise ConverterError(f"{where}: the hub sent {n_written} of {nbytes} bytes; run it again")

    async def _chunks(self, response: "Response", where: HubAddress, limit: int) -> AsyncIterator[bytes]:
        """The body as it comes; one that is longer than ``limit`` isn't read to its end."""
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":  # a few bytes could be unpacked to any number
            raise ConverterError(f"{where}: the hub sends it compressed ({encoding}), which wasn't asked for")
        n_read = 0
        async for chunk in response.aiter_raw():
            n_read, self._left = n_read + len(chunk), self._left - len(chunk)
            if n_read > limit:
                raise ConverterError(f"{where}: the hub sends more than {limit} bytes, which isn't read to its end")
            if self._left < 0:
                raise ConverterError(f"{where}: takes more than {HUB_NBYTES} bytes of the hub; name one folder of it")
            yield chunk


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, (parts.hostname or "").lower(), parts.port or {"http": 80, "https": 443}.get(scheme, 0)


def _next(url: str, response: "Response", where: HubAddress) -> str:
    try:
        target = urljoin(url, response.headers["Location"])
        schemes = _origin(url)[0], _origin(target)[0]
    except ValueError as error:  # of a host or a port that is none
        raise ConverterError(f"{where}: the hub redirects to what is no address: {error}") from error
    if schemes not in {("http", "http"), ("http", "https"), ("https", "https")}:
        raise ConverterError(f"{where}: the hub redirects from {schemes[0]} to {schemes[1]}, which isn't followed")
    return target


def _require_same(response: "Response", where: HubAddress, nbytes: int) -> None:
    """Refuse an answer of another commit, or of a file of another size, than was asked for."""
    commit = response.headers.get("X-Repo-Commit", where.revision)
    if commit != where.revision:
        raise ConverterError(f"{where}: the hub answered with the commit {commit!r}")
    size = response.headers.get("X-Linked-Size", str(nbytes))
    if size != str(nbytes):
        raise ConverterError(f"{where}: the hub says that it has {size} bytes, and {nbytes} in its list of files")
