r"""Regexes out of a file from somewhere, matched in bounded time, with the verdicts of Python's own ``re``.

``re`` tries one way through a pattern after another, and a pattern can have more ways than there is time:
``(a+)+b`` has 2 to the power of n over n letters. Here all ways are walked at once: how many ways lead to each
position of the text is one whole number, LANE bits a position, and a character's place in the pattern moves all of them
by one. Their sum is what ``re`` would try at most, so it is counted, and too many end the match: what is accepted here
is quick in PEFT too.

The pattern is read by Python's own parser (Lib/re/_parser.py; the same tree from Python 3.11 to 3.14). What has no
place in such a walk is refused: references to groups, atomic groups, possessive repeats, repeats of what may be empty.
"""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from re import _constants as op  # type: ignore[attr-defined]  # typeshed leaves these out
from re import _parser  # type: ignore[attr-defined]  # nor this
from typing import Any, Final

from converter.derive.budget import Budget, PatternError
from converter.read.limits import PATTERN_LENGTH, PATTERN_WAYS

LANE: Final = 32  # bits: a sum of ways never reaches the next position's
_FULL: Final = (1 << LANE) - 1
_DEPTH: Final = 40  # of groups in each other
_FLAGS: Final = re.IGNORECASE | re.MULTILINE | re.DOTALL | re.VERBOSE | re.UNICODE
_OF_CHARACTERS: Final = re.IGNORECASE | re.DOTALL
_CATEGORIES: Final = {
    op.CATEGORY_DIGIT: r"\d",
    op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W",
}
_PLACES: Final = {
    op.AT_BEGINNING: "^",
    op.AT_BEGINNING_STRING: r"\A",
    op.AT_BOUNDARY: r"\b",
    op.AT_NON_BOUNDARY: r"\B",
    op.AT_END: "$",
    op.AT_END_STRING: r"\Z",
}


@dataclass(slots=True)
class _Walk:
    """One text, and the ways that may still be tried over it."""

    text: str
    budget: Budget
    left: int = PATTERN_WAYS
    lanes: dict[re.Pattern[str], int] = field(default_factory=dict)

    def where(self, place: re.Pattern[str]) -> int:
        """The positions of one kind of character, or of a place that has no width, as full lanes."""
        if place not in self.lanes:
            self.lanes[place] = sum(_FULL << (LANE * found.start()) for found in place.finditer(self.text))
        return self.lanes[place]

    def count(self, ways: int) -> int:
        """The ways themselves, once they are counted. Raises PatternError where they are too many."""
        self.budget.spend(2 + len(self.text) // 32)
        self.left -= ways % _FULL  # the sum of the lanes, as 9s are cast out of decimals
        if self.left < 0:
            raise PatternError(f"can be tried in more than {PATTERN_WAYS:,} ways over {self.text[:80]!r}")
        return ways


_Step = Callable[[_Walk, int], int]  # from the ways to each position before to those after


_NO_DIGIT: Final = str.maketrans("123456789", "000000000")


@dataclass(frozen=True, slots=True)
class Regex:
    """A pattern that can be matched in bounded time, by all of one adapter's patterns together.

    One that tells no digit from another is matched once for all layers and experts whose numbers are equally long.
    """

    _step: _Step
    _budget: Budget
    _tells_digits: bool
    _known: dict[tuple[str, bool], bool] = field(default_factory=dict)

    def matches(self, text: str) -> bool:
        """Whether ``re.match`` finds it at the beginning of a text. Raises PatternError."""
        return self._matched(text, whole=False)

    def fullmatches(self, text: str) -> bool:
        """Whether ``re.fullmatch`` finds it to be the whole text. Raises PatternError."""
        return self._matched(text, whole=True)

    def _matched(self, text: str, *, whole: bool) -> bool:
        self._budget.spend(1)
        text = text if self._tells_digits else text.translate(_NO_DIGIT)
        if (text, whole) not in self._known:
            ways = self._step(_Walk(text, self._budget), 1)
            self._known[text, whole] = bool(ways >> (LANE * len(text)) if whole else ways)
        return self._known[text, whole]


def regex(pattern: str, budget: Budget) -> Regex:
    """Read a pattern. Raises PatternError where it is no regex, or none that is read here."""
    budget.spend(5 * len(pattern) + 100)
    tree = parsed(pattern)
    if tree.state.flags & ~_FLAGS:
        raise PatternError("has a flag that is not read here")
    return Regex(_sequence(tree, tree.state.flags, 0), budget, _tells_digits(tree))


def _tells_digits(part: Any) -> bool:
    """Whether a part of the tree names a digit: it may be one that the text has to have."""
    match part:
        case (op.LITERAL | op.NOT_LITERAL, int(code)):
            return chr(code) in "0123456789"
        case (op.RANGE, ends):
            return any(chr(code) in "0123456789" for code in ends)
        case tuple() | list() | _parser.SubPattern():
            return any(map(_tells_digits, part))
        case _:
            return False


def parsed(pattern: str) -> Any:
    """Python's tree of a pattern; one that may mean something else to its next versions counts as no regex."""
    if len(pattern) > PATTERN_LENGTH:
        raise PatternError(f"has {len(pattern):,} characters, and {PATTERN_LENGTH:,} are read")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(pattern)
            return _parser.parse(pattern)
    except (re.error, RecursionError, OverflowError, FutureWarning, DeprecationWarning) as error:
        raise PatternError(f"is no regex: {error}") from error


def _sequence(tree: Any, flags: int, depth: int) -> _Step:
    if depth > _DEPTH:
        raise PatternError(f"has more than {_DEPTH} groups in each other")
    steps = tuple(_step(kind, argument, flags, depth + 1) for kind, argument in tree)

    def walk(walked: _Walk, ways: int) -> int:
        for step in steps:
            if not ways:
                return 0
            ways = step(walked, ways)
        return ways

    return walk


def _step(kind: Any, argument: Any, flags: int, depth: int) -> _Step:
    match kind:
        case op.LITERAL | op.NOT_LITERAL | op.ANY | op.IN:
            return _character(re.compile(_character_text(kind, argument), flags & _OF_CHARACTERS))
        case op.AT:
            return _place(re.compile(_PLACES[argument], flags & re.MULTILINE))
        case op.SUBPATTERN:
            _, added, removed, tree = argument
            if (added | removed) & ~_FLAGS:
                raise PatternError("has a flag that is not read here")
            return _sequence(tree, (flags | added) & ~removed, depth)
        case op.BRANCH:
            return _branch(tuple(_sequence(tree, flags, depth) for tree in argument[1]))
        case op.MAX_REPEAT | op.MIN_REPEAT:
            least, most, tree = argument
            return _repeat(least, int(most), tree, _sequence(tree, flags, depth))
        case op.ASSERT | op.ASSERT_NOT:
            direction, tree = argument
            back = tree.getwidth()[0] if direction < 0 else 0
            return _look(_sequence(tree, flags, depth), back, wanted=kind is op.ASSERT)
        case _:
            raise PatternError(f"has {str(kind).lower().replace('_', ' ')}, which is not read here")


def _character_text(kind: Any, argument: Any) -> str:
    """The regex of one character, to be asked of ``re`` itself."""
    match kind:
        case op.ANY:
            return "."
        case op.LITERAL:
            return _escaped(argument)
        case op.NOT_LITERAL:
            return f"[^{_escaped(argument)}]"
        case _:
            return f"[{''.join(_member_text(*member) for member in argument)}]"


def _member_text(kind: Any, argument: Any) -> str:
    match kind:
        case op.NEGATE:
            return "^"
        case op.RANGE:
            return f"{_escaped(argument[0])}-{_escaped(argument[1])}"
        case op.CATEGORY:
            return _CATEGORIES[argument]
        case _:
            return _escaped(argument)


def _escaped(code: int) -> str:
    return f"\\U{code:08x}"


def _character(kind: re.Pattern[str]) -> _Step:
    def walk(walked: _Walk, ways: int) -> int:
        return walked.count(ways & walked.where(kind)) << LANE

    return walk


def _place(kind: re.Pattern[str]) -> _Step:
    def walk(walked: _Walk, ways: int) -> int:
        return walked.count(ways & walked.where(kind))

    return walk


def _branch(branches: tuple[_Step, ...]) -> _Step:
    def walk(walked: _Walk, ways: int) -> int:
        return walked.count(sum(branch(walked, ways) for branch in branches))

    return walk


def _repeat(least: int, most: int, tree: Any, once: _Step) -> _Step:
    if most > 1 and tree.getwidth()[0] == 0:
        raise PatternError("repeats what may be empty")

    def walk(walked: _Walk, ways: int) -> int:
        reached = ways if least == 0 else 0
        for n in range(1, min(most, len(walked.text)) + 1):
            ways = once(walked, ways)
            if not ways:
                break
            if n >= least:
                reached += ways
        return walked.count(reached)

    return walk


def _look(inside: _Step, back: int, *, wanted: bool) -> _Step:
    """Keep the ways to the positions from where, or ``back`` before which, the inside matches, or doesn't."""

    def walk(walked: _Walk, ways: int) -> int:
        kept = 0
        for position in range(len(walked.text) + 1):
            lane = ways & (_FULL << (LANE * position))
            begin = position - back
            if lane and (begin >= 0 and inside(walked, 1 << (LANE * begin)) != 0) is wanted:
                kept |= lane
        return walked.count(kept)

    return walk
