"""How rules word what they found."""

from collections.abc import Iterable
from typing import Final

_MOST: Final = 6


def listed(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - _MOST} more" if len(every) > _MOST else ""
    return ", ".join(every[:_MOST]) + more
