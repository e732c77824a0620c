"""Files that a rule would have to read, of an adapter on a hub, where they were not fetched."""

from typing import TYPE_CHECKING

from converter.diagnostics import CannotLookError

if TYPE_CHECKING:
    from converter.derive.adapter import Adapter


def refuse_unread(adapter: "Adapter", endings: tuple[str, ...]) -> None:
    """Raise CannotLookError where such a file wasn't fetched: that nothing was found in it says nothing then."""
    unread = [name for name in adapter.on_hub.unread if name.endswith(endings)] if adapter.on_hub else []
    if unread:
        raise CannotLookError(f"not fetched, too large: {', '.join(unread[:3])}")
