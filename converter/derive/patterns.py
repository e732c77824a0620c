r"""PEFT's rank_pattern and alpha_pattern: regexes out of a file from somewhere, matched in bounded time.

PEFT matches ``(.*\.)?(KEY)$`` against the module's path, first key in the file's order wins (``get_pattern_key`` in
peft/utils/other.py). A regex with nested repetition can take exponential time: such a one is refused, not run.
"""

import re
import warnings
from collections.abc import Iterable
from functools import cache
from typing import Final

from converter.read.limits import PATTERN_LENGTH

_MAX_REPEATS: Final = 3  # time grows with the path's length to this power, and paths are short
_SKIP: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]")  # an escape or a character class: one atom


def compiles(pattern: str) -> bool:
    """Whether a regex compiles, and means the same to Python's next versions (``[[`` and ``--`` in a set may not)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError, FutureWarning, DeprecationWarning):
        return False
    return True


def is_bounded(pattern: str) -> bool:
    """Whether a regex compiles, alone and as PEFT runs it, and repeats nothing that itself repeats."""
    sound = len(pattern) <= PATTERN_LENGTH and compiles(pattern) and compiles(_as_peft_runs_it(pattern))
    return sound and not _nests(_SKIP.sub("a", pattern))


def _as_peft_runs_it(key: str) -> str:
    return rf"(.*\.)?({key})$"


def _nests(atoms: str) -> bool:
    """Whether a group with more than one way to match is itself repeated, or too many repetitions stand in a row."""
    ambiguous = [False]  # one per open group
    just_closed = False
    repeats = 0
    for before, mark in zip(" " + atoms, atoms, strict=False):
        if mark in "*+{":
            if just_closed:
                return True
            repeats += 1
        if mark == "(":
            ambiguous.append(False)
        elif mark in "*+{|" or (mark == "?" and before != "("):
            ambiguous[-1] = True
        just_closed = mark == ")" and len(ambiguous) > 1 and ambiguous.pop()
        ambiguous[-1] |= just_closed
    return repeats > _MAX_REPEATS


@cache
def _compiled(key: str) -> re.Pattern[str] | None:
    return re.compile(_as_peft_runs_it(key)) if is_bounded(key) else None


def first_match(keys: Iterable[str], module: str) -> str | None:
    """The first key that matches the module's path as PEFT matches it; keys that are not bounded match nothing."""
    for key in keys:
        pattern = _compiled(key)
        if pattern and pattern.match(module):
            return key
    return None
