"""The commit of a revision, and the files that a hub lists of it.

The hub's API: ``HfApi.model_info`` and ``HfApi.list_repo_tree`` in huggingface_hub/hf_api.py.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qs, quote, urlsplit

from converter.errors import ConverterError
from converter.hub.client import Hub
from converter.read.files import Unreadable
from converter.read.hub_address import HubAddress
from converter.read.limits import FILES, HUB_LIST_NBYTES
from converter.read.strict_json import json_object, parsed_json

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


async def at_its_commit(hub: Hub, address: HubAddress) -> HubAddress:
    """The address with the commit that its revision is now."""
    revision = quote(address.revision, safe="")
    data, _ = await hub.json(f"{address.repository}/revision/{revision}?expand=sha", address, HUB_LIST_NBYTES)
    try:
        commit = json_object(data).get("sha")
    except Unreadable as error:
        raise ConverterError(f"{address}: what the hub says of it {error}") from error
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise ConverterError(f"{address}: the hub says that its commit is {commit!r}, wanted 40 hexadecimal digits")
    if _COMMIT.fullmatch(address.revision) and commit != address.revision:
        raise ConverterError(f"{address}: the hub answered with another commit, {commit}")
    return address._replace(revision=commit)


async def listed_files(hub: Hub, address: HubAddress) -> Mapping[str, int]:
    """The size of each file below the address, by its path from there."""
    folder = f"/{quote(address.folder)}" if address.folder else ""
    path = f"{address.repository}/tree/{address.revision}{folder}?recursive=true"
    files: dict[str, int] = {}
    page: str | None = path
    n_entries = 0
    while page:
        data, headers = await hub.json(page, address, HUB_LIST_NBYTES)
        entries = _entries(data, address)
        n_entries += len(entries)
        if n_entries > FILES:
            raise ConverterError(f"{address}: holds more than {FILES} files; name one folder of it: {address}/FOLDER")
        files.update(_sizes(entries, address))
        cursor = _cursor(headers) if entries else None
        page = f"{path}&cursor={quote(cursor, safe='')}" if cursor else None
    return files


def _entries(data: bytes, address: HubAddress) -> list[Any]:
    try:
        parsed = parsed_json(data)
    except Unreadable as error:
        raise ConverterError(f"{address}: the hub's list of files {error}") from error
    if not isinstance(parsed, list):
        raise ConverterError(f"{address}: the hub's list of files is no list")
    return parsed


def _sizes(entries: list[Any], address: HubAddress) -> Iterator[tuple[str, int]]:
    above = f"{address.folder}/" if address.folder else ""
    for entry in entries:
        match entry:
            case {"type": "file", "path": str(path), "size": int(size)} if size >= 0 and path.startswith(above):
                yield path.removeprefix(above), size
            case {"type": "directory"}:
                pass
            case _:
                raise ConverterError(f"{address}: the hub lists {str(entry)[:100]!r}, which isn't understood")


def _cursor(headers: Mapping[str, str]) -> str | None:
    """Where the next page begins, of its link; the rest of the link is the hub's own address, or another's."""
    link = re.search(r'<([^>]*)>\s*;\s*rel="?next"?', headers.get("Link", ""))
    return next(iter(parse_qs(urlsplit(link[1]).query).get("cursor", ())), None) if link else None
