"""The list of spoilt adapters: each breaks the rules it names, and no other."""

from collections.abc import Callable
from pathlib import Path

from tests.rules.specimens import Specimen

Spoil = Callable[[Specimen, Path], None]  # the good adapter, and the directory of the bases
BAD: list[tuple[tuple[str, ...], Spoil]] = []


def bad(*codes: str) -> Callable[[Spoil], Spoil]:
    """List what follows as an adapter that breaks the first rule, and those which can't be told apart from it."""

    def listed(spoil: Spoil) -> Spoil:
        BAD.append((codes, spoil))
        return spoil

    return listed
