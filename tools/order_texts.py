"""The text that a table writes for an order (converter/orders.py), found from the numbers of rows or columns."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Dims = Mapping[str, int]
_REST: Final = "_"
_OF_GROUPS: Final = frozenset({"q_group", "q_last", "q_parts"})  # small numbers: 2 is a half before it is one of these


class Axis(NamedTuple):
    """An axis of the Hugging Face rows: what it may be called, and its only place that is kept, if there is one."""

    names: frozenset[str]
    at: int | None = None


class Section(NamedTuple):
    """Axes before the arrow, and those that are kept behind it by their position before it."""

    axes: tuple[Axis, ...]
    behind: tuple[int, ...]


Sections = tuple[Section, ...]


def sections(found: Indices, n: int, dims: Dims) -> Sections | None:
    """The order that takes ``found`` out of ``n``; empty where all stay where they are, None where there is no text."""
    if np.array_equal(found, np.arange(n)):
        return ()
    whole = _section(found, n, dims)
    if whole:
        return (whole,)
    for name, size in dims.items():
        if 0 < size < n and np.array_equal(found[:size], np.arange(size)):
            behind = _section(found[size:] - size, n - size, dims)
            if behind:
                return Section((Axis(frozenset({name})),), (0,)), behind
    return None


def common(first: Sections, second: Sections) -> Sections | None:
    """What two measurements with different sizes may both be called; None where they are no one order."""
    if [section.behind for section in first] != [section.behind for section in second]:
        return None
    both = [
        Section(tuple(Axis(a.names & b.names, a.at) for a, b in zip(x.axes, y.axes, strict=True)), x.behind)
        for x, y in zip(first, second, strict=True)
        if [axis.at for axis in x.axes] == [axis.at for axis in y.axes]
    ]
    complete = len(both) == len(first) and all(axis.names for section in both for axis in section.axes)
    return tuple(both) if complete else None


def text(order: Sections) -> str:
    """The shortest text, as tables have it: the last axis that may be what is left is."""
    return " | ".join(_text(section) for section in order)


def _text(section: Section) -> str:
    nameless = [i for i, axis in enumerate(section.axes) if axis.names == {_REST}]
    rest = (nameless or [len(section.axes) - 1 if section.axes[-1].at is None else 0])[0]
    names: list[str] = []
    for i, axis in enumerate(section.axes):
        free = sorted(
            axis.names - {_REST} - {*names},
            key=lambda name: (name in _OF_GROUPS, name.isdigit(), not name.startswith("n_"), len(name), name),
        )
        is_rest = i == rest and _REST in axis.names and len(section.axes) > 1
        names.append(_REST if is_rest or not free else free[0])
    kept = sorted(i for i, axis in enumerate(section.axes) if axis.at is not None)
    taken = [f"{names[i]}={section.axes[i].at}" for i in kept]
    moved = [names[i] for i in section.behind]
    behind = taken + moved if kept and kept[0] == 0 else moved + taken
    return " ".join(names) if behind == names else f"{' '.join(names)} -> {' '.join(behind)}"


def _section(found: Indices, n: int, dims: Dims) -> Section | None:
    loops = _loops(found - found[0])
    if loops is None:
        return None
    axes: list[tuple[int, int | None, int]] = []  # the fastest first: size, kept place, which loop
    size, begin = 1, 0
    for loop in sorted(range(len(loops)), key=lambda i: loops[i][1]):
        count, stride = loops[loop]
        if stride % size:
            return None
        if stride > size:
            at = int(found[0]) // size % (stride // size)
            begin += at * size
            axes.append((stride // size, at, -1))
        axes.append((count, None, loop))
        size = stride * count
    if n % size or size > n:
        return None
    if n > size:
        begin += int(found[0]) // size * size
        axes.append((n // size, int(found[0]) // size, -1))
    if begin != found[0]:  # a range of an axis, for which there is no text here
        return None
    axes.reverse()
    order = {loop: i for i, (_, _, loop) in enumerate(axes) if loop >= 0}
    named = tuple(Axis(_names(size, dims), at) for size, at, _ in axes)
    return Section(named, tuple(order[loop] for loop in range(len(loops))))


def _names(size: int, dims: Dims) -> frozenset[str]:
    return frozenset({_REST, str(size), *(name for name, value in dims.items() if value == size)})


def _loops(found: Indices) -> list[tuple[int, int]] | None:
    """Counts and strides of the nested loops that give these numbers, the slowest first."""
    loops: list[tuple[int, int]] = []
    while len(found) > 1:
        stride = int(found[1] - found[0])
        if stride <= 0:
            return None
        count = next(c for c in _divisors(len(found)) if _repeats(found, c, stride))
        if count == 1:
            return None
        loops.insert(0, (count, stride))
        found = found[::count]
    return _merged(loops)


def _repeats(found: Indices, count: int, stride: int) -> bool:
    return bool((found.reshape(-1, count) == found[::count, None] + stride * np.arange(count)).all())


def _divisors(n: int) -> Iterator[int]:
    return (n // d for d in range(1, n + 1) if n % d == 0)


def _merged(loops: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Loops that run on into each other are one."""
    merged = list(loops[:1])
    for slow, fast in pairwise(loops):
        if slow[1] == fast[0] * fast[1]:
            merged[-1] = (merged[-1][0] * fast[0], fast[1])
        else:
            merged.append(fast)
    return merged
