"""What is made of a short text is remembered: the adapters of a run mostly have the same keys and paths."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Final, TypeVar

from converter.read.limits import KEY_LENGTH

_N_TEXTS: Final = 1 << 14

T = TypeVar("T")


def remembered(function: Callable[[str], T]) -> Callable[[str], T]:
    """The same function of a text, asked once for each; texts longer than any key of a model are not kept."""
    known = lru_cache(_N_TEXTS)(function)

    @wraps(function)
    def asked(text: str) -> T:
        return known(text) if len(text) <= KEY_LENGTH else function(text)

    return asked
