"""What a hub that refuses, or can't be reached, is told as: one line, with what to do.

The hub names the reason in X-Error-Code; for what isn't there and for what may not be seen without a token it gives the
same 401 (``hf_raise_for_status`` in huggingface_hub/utils/_http.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from converter.errors import ConverterError
from converter.read.hub_address import HubAddress

if TYPE_CHECKING:
    from httpx2 import Response

_FOR_NOW: Final = {
    range(429, 430): "takes no more requests for now; try again later, or with a token",
    range(500, 600): "has a fault of its own; try again later",
}
_HIDDEN: Final = (401, 403, 404)


def refuse_status(response: "Response", where: HubAddress, *, by_hub: bool) -> NoReturn:
    """Raise ConverterError that says what a status means: the hub's own, or that of the storage it redirects to."""
    raise ConverterError(f"{where}: {_of_hub(response, where) if by_hub else _of_storage(response)}")


def _of_hub(response: "Response", where: HubAddress) -> str:
    has_token = "authorization" in response.request.headers
    match response.headers.get("X-Error-Code"):
        case "GatedRepo":
            page = f"{response.request.url.scheme}://{response.request.url.netloc.decode()}/{where.repository}"
            who = "the account of this token" if has_token else "an account, and give its token in HF_TOKEN"
            return f"is gated; ask for access at {page} with {who}"
        case "RevisionNotFound":
            return f"the repository has no revision {where.revision!r}; wanted a branch, a tag or a commit of it"
        case "EntryNotFound":
            return "is not there at this revision"
    if response.status_code in _HIDDEN:
        why = "this token may not see it" if has_token else "is private, which takes a token in HF_TOKEN"
        return f"is not there, or {why} (status {response.status_code})"
    return f"the hub {_said(response)}"


def _of_storage(response: "Response") -> str:
    return f"the storage of the hub, {response.request.url.host}, {_said(response)}"


def _said(response: "Response") -> str:
    status = response.status_code
    if status == 200:
        return "sends all of it where a part was asked for (status 200, wanted 206); none of it is read. Download it"
    known = next((why for statuses, why in _FOR_NOW.items() if status in statuses), "")
    return f"{known} (status {status})" if known else f"answers with status {status}, which isn't understood"


@contextmanager
def in_other_words(where: HubAddress, endpoint: str, timeout: float, seconds: float) -> Iterator[None]:
    """Make a ConverterError, status 2, of what keeps an answer from coming."""
    import httpx2

    try:
        yield
    except httpx2.ConnectError as error:
        raise ConverterError(f"{where}: {endpoint} can't be reached: {error}") from error
    except httpx2.TimeoutException as error:
        waited = f"nothing for {timeout:g} s (HF_HUB_DOWNLOAD_TIMEOUT)"
        raise ConverterError(f"{where}: the hub sent {waited}; try again later") from error
    except TimeoutError as error:
        raise ConverterError(f"{where}: the hub took longer than {seconds:.0f} s; try again later") from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        why = str(error) or type(error).__name__
        raise ConverterError(f"{where}: the connection to the hub broke: {why}; run it again") from error
