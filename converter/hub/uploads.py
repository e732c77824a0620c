"""Files into a repository of a hub: in one commit, by huggingface_hub, and then seen to be there.

To commit once more what a hub has already changes nothing: huggingface_hub leaves such files out, and content that the
storage has isn't sent. So whoever can't know whether a commit got through may repeat it. The token goes to the endpoint
alone; what a hub or its storage says is told by its status, never in its own words, which may hold signed addresses.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from converter.errors import ConverterError, how_to_install
from converter.hub.quiet import quiet
from converter.read.hub_address import HubAddress

if TYPE_CHECKING:
    from httpx2 import Client

_CONNECT_SECONDS: Final = 15.0
_SECONDS: Final = 120.0  # without a byte, either way; a large commit takes a hub half a minute
_WAITS: Final = (2.0, 10.0, 30.0)  # before a commit that didn't get through is tried again
_LONGEST_WAIT: Final = 60.0  # that a hub may ask for
_FOR_NOW: Final = (408, 409, 412, 429, *range(500, 600))  # 409, 412: somebody else commits at the same time
_NO_BRANCH: Final = 40  # digits of a commit


class Uploads:
    """Commits to repositories, until it is closed.

    For that time huggingface_hub's client is ours, which waits no longer than ``_SECONDS`` for a byte: its own waits
    for ever.
    """

    def __init__(self, where: object) -> None:
        """``where`` is what messages name. Raises ConverterError where no hub can be asked."""
        from huggingface_hub import HfApi, set_client_factory

        self._closed = False
        self._api = HfApi(token=_token(where))
        set_client_factory(self._client)

    def close(self) -> None:
        """End what is under way: its next byte or its next request fails."""
        from huggingface_hub import set_client_factory
        from huggingface_hub.utils._http import default_client_factory

        self._closed = True
        set_client_factory(default_client_factory)

    def _client(self) -> "Client":
        import httpx2
        from huggingface_hub.utils._http import hf_request_event_hook

        timeout = httpx2.Timeout(_SECONDS, connect=_CONNECT_SECONDS)
        hooks = {"request": [hf_request_event_hook, self._refuse_closed]}
        return httpx2.Client(event_hooks=hooks, follow_redirects=True, timeout=timeout)

    def require_writable(self, address: HubAddress) -> None:
        """Raise ConverterError where this token can't commit to this branch of this repository."""
        if len(address.revision) == _NO_BRANCH and set(address.revision) <= set("0123456789abcdef"):
            raise ConverterError(f"{address}: is at a commit; wanted the name of a branch, to which can be committed")
        with _told(address):
            self._api.auth_check(address.repository, write=True)
            self._api.repo_info(address.repository, revision=address.revision)

    def commit(self, address: HubAddress, files: Mapping[str, Path], message: str) -> str:
        """Commit files by their paths in a repository, and return the commit. ``address`` has no folder.

        Raises ConverterError where that can't be done, or where the hub then has anything else.
        """
        for path in files.values():
            if not path.is_file():
                raise ConverterError(f"{path}: is gone, and could not be pushed")
        with _told(address):
            for wait in (*_WAITS, None):
                try:
                    return self._commit(address, files, message)
                except Exception as error:
                    seconds = _seconds_until(error, wait)
                    if seconds is None or self._closed:
                        raise
                    time.sleep(seconds)
        raise AssertionError  # the last try returns or raises

    def _commit(self, address: HubAddress, files: Mapping[str, Path], message: str) -> str:
        """One try. Operations that were tried don't ask again what the hub has: it may have all by now."""
        from huggingface_hub import CommitOperationAdd

        added = [CommitOperationAdd(name, path) for name, path in files.items()]
        commit = self._api.create_commit(address.repository, added, commit_message=message, revision=address.revision)
        self._require_there(address, commit.oid, added)
        return str(commit.oid)

    def _require_there(self, address: HubAddress, commit: str, added: list[Any]) -> None:
        """A .gitignore of the repository's would keep files out, and be told nowhere."""
        names = [one.path_in_repo for one in added]
        found = {it.path: it for it in self._api.get_paths_info(address.repository, names, revision=commit)}
        for one in added:
            there = found.get(one.path_in_repo)
            if there is None or not _is_same(there, one):
                what = "isn't there" if there is None else "is another file there"
                raise ConverterError(
                    f"{address / one.path_in_repo}: was pushed, and {what} at commit {commit[:12]}; "
                    "look at the repository's .gitignore, and who else writes to it"
                )

    def _refuse_closed(self, _request: object) -> None:
        if self._closed:
            raise ConverterError("stopped")


def _token(where: object) -> str:
    try:
        import httpx2  # noqa: F401  its errors are told apart
        from huggingface_hub import constants, get_token
    except ImportError as error:
        raise ConverterError(f"{where}: needs {error.name}, which is not installed; {how_to_install('hub')}") from error
    except ValueError as error:  # huggingface_hub looks at the endpoint when it is imported
        raise ConverterError(f"{where}: HF_ENDPOINT is no address: {error}") from error
    if constants.is_offline_mode():
        raise ConverterError(f"{where}: HF_HUB_OFFLINE is set, and a push needs the network; unset it")
    token = get_token()
    if not token:
        raise ConverterError(f"{where}: to write there takes a token: set HF_TOKEN, or run `hf auth login`")
    return str(token)


def _is_same(there: Any, added: Any) -> bool:
    if getattr(there, "lfs", None):
        return bool(there.lfs.sha256 == added.upload_info.sha256.hex())
    data = Path(added.path_or_fileobj).read_bytes()  # small, or else it would lie in the storage
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    return bool(getattr(there, "blob_id", None) == blob)


def _seconds_until(error: Exception, wait: float | None) -> float | None:
    """How long to wait before it is tried again; None where that is of no use."""
    import httpx2

    cause = _cause(error)
    if wait is None:
        return None
    response = getattr(cause, "response", None)
    if response is None:
        return wait if isinstance(cause, httpx2.TransportError) else None
    if response.status_code not in _FOR_NOW:
        return None
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_WAIT) if asked.isdecimal() else wait


def _cause(error: BaseException) -> BaseException:
    """What is behind huggingface_hub's own words for it."""
    import httpx2

    while not isinstance(error, httpx2.HTTPError | OSError | ConverterError) and error.__cause__:
        error = error.__cause__
    return error


@contextmanager
def _told(where: HubAddress) -> Iterator[None]:
    """Make a ConverterError, status 2, of whatever ends a push."""
    try:
        with quiet(bars=False):
            yield
    except ConverterError:
        raise
    except Exception as error:
        raise ConverterError(f"{where}: {_why(_cause(error), where)}") from error


def _why(error: BaseException, where: HubAddress) -> str:
    import httpx2

    response = getattr(error, "response", None)
    if response is not None:
        return _of_status(response.status_code, response.headers.get("X-Error-Code"), where)
    if isinstance(error, httpx2.HTTPError):
        return f"the connection to the hub broke ({type(error).__name__}); run it again"
    if isinstance(error, OSError) and error.filename:
        return f"{os.fsdecode(error.filename)}: {error.strerror or type(error).__name__}"
    return f"couldn't be pushed ({type(error).__name__}); run it again"


def _of_status(status: int, code: str | None, where: HubAddress) -> str:
    told = f"(status {status})"
    if code == "RevisionNotFound":
        return f"the repository has no branch {where.revision!r}; make it first"
    if status in (401, 403):
        return f"this token may not write there {told}; give one that may in HF_TOKEN"
    if status == 404:
        return f"there is no such repository, or this token may not see it {told}; `hf repos create` makes one"
    if status == 429:
        return f"the hub takes no more requests for now {told}; run it again later"
    if status in _FOR_NOW:
        return f"the hub has a fault of its own, or somebody else commits there {told}; run it again later"
    return f"the hub refuses it {told}"
