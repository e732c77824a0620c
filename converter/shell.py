"""Commands as people type them: into a POSIX shell, or on Windows into cmd or PowerShell alike.

cmd knows no single quotes, and reads % and ! within double ones; PowerShell reads $ and ` there, and takes typographic
quotes for quotes. What has none of these is bare or in double quotes; the rest is as a POSIX shell wants it.
"""

import re
import shlex
import sys
from collections.abc import Iterable
from typing import Final

_BARE: Final = re.compile(r"[\w.:/\\=+-]+")
_IN_DOUBLE_QUOTES: Final = re.compile(r"[\w.:/\\=+ ()\[\]{}'&,;~#@^-]*(?<!\\)")  # a \" ends nothing


def as_typed(words: Iterable[str]) -> str:
    """One line of what to type."""
    return " ".join(map(_on_windows if sys.platform == "win32" else shlex.quote, words))


def _on_windows(word: str) -> str:
    if _BARE.fullmatch(word):
        return word
    return f'"{word}"' if _IN_DOUBLE_QUOTES.fullmatch(word) else shlex.quote(word)
