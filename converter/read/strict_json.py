"""JSON of adapters and bases: UTF-8 without a mark in front, characters only, and not more than can be held."""

import json
import re
from typing import Any, Final

from converter.read.files import START_NBYTES, Unreadable
from converter.read.limits import JSON_VALUES

_ESCAPED_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


def parsed_json(data: bytes, limit: int = JSON_VALUES, **hooks: Any) -> Any:
    """The value that ``data`` states; ``hooks`` are those of json.loads. Raises Unreadable."""
    n_values = data.count(b",") + data.count(b"[") + data.count(b"{")  # or fewer: some may stand in strings
    if n_values > limit:
        raise Unreadable(f"holds {n_values} values (at most {limit})")
    try:
        return json.loads(data.decode(), **hooks)
    except (ValueError, RecursionError) as error:
        from converter.read.foreign import refuse_foreign

        refuse_foreign(data[:START_NBYTES])
        raise Unreadable(f"is not JSON: {error}" if data.strip() else "is empty") from error


def json_object(data: bytes, **hooks: Any) -> dict[str, Any]:
    """The object that ``data`` states, all of it characters. Raises Unreadable."""
    parsed = parsed_json(data, **hooks)
    if not isinstance(parsed, dict):
        raise Unreadable("is not a JSON object")
    require_characters(data, parsed)
    return parsed


def require_characters(data: bytes, parsed: object) -> None:
    """Refuse half of a surrogate pair, as the Rust libraries do that read these files: it is no character.

    Raises Unreadable.
    """
    if not _ESCAPED_SURROGATE.search(data):
        return
    try:
        json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Unreadable("holds half of a surrogate pair, which is no character") from error
