"""The text of an order (converter/orders.py) whose numbers are known, with sizes in place of names of dimensions.

Every rewrite of llama.cpp's converter reshapes, turns axes round, splits and joins: what has no text is none of those.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise, permutations
from typing import Final

import numpy as np

from converter.orders import order
from converter.values.orders import Indices, indices

Loops = list[tuple[int, int]]  # counts and strides of nested loops, the slowest first
_MAX_RUNS: Final = 8  # parts behind an arrow: a fused tensor has three or four


def order_text(found: Indices, n: int) -> str | None:
    """The order that takes ``found`` out of ``n``; empty where all stay where they are, None where there is none."""
    if np.array_equal(found, np.arange(n)):
        return ""
    for text in _texts(found, n):
        if _says(text, n, found):
            return text
    return None


def _says(text: str, n: int, found: Indices) -> bool:
    return np.array_equal(indices(order(text, n, {}), n), found)


def _texts(found: Indices, n: int) -> Iterator[str]:
    yield from _sections(found, n)
    for k in range(min(_n_staying(found), len(found) - 1), 0, -1):  # the first k stay where they are
        yield from (f"{k} | {behind}" for behind in _sections(found[k:] - k, n - k))


def _n_staying(found: Indices) -> int:
    moved = np.flatnonzero(found != np.arange(len(found)))
    return int(moved[0]) if len(moved) else len(found)


def _sections(found: Indices, n: int) -> Iterator[str]:
    """One section, with each of its runs a part behind the arrow; there may be several ways to cut it into axes."""
    runs = _runs(found)
    for sizes in _axes(runs, n):
        names = _names(sizes)
        parts = [_part(begin, loops, sizes, names) for begin, loops in runs]
        if parts and None not in parts:
            yield f"{' '.join(names)} -> {' & '.join(filter(None, parts))}"


def _runs(found: Indices) -> list[tuple[int, Loops]]:
    """The numbers as nested loops one behind the other, each as long as can be; none where there are too many."""
    runs: list[tuple[int, Loops]] = []
    at = 0
    while at < len(found):
        if len(runs) == _MAX_RUNS:
            return []
        loops, n = _longest(found[at:])
        runs.append((int(found[at]), loops))
        at += n
    return runs


def _longest(found: Indices) -> tuple[Loops, int]:
    """The loops that the numbers begin with, and how many they give."""
    loops: Loops = []
    taken = 1
    while taken < len(found):
        stride = int(found[taken] - found[0])
        if stride <= 0 or any(stride == inner for _, inner in loops):
            break
        count = _count(found, taken, stride)
        if count == 1:
            break
        loops.insert(0, (count, stride))
        taken *= count
    return loops, taken


def _count(found: Indices, taken: int, stride: int) -> int:
    """How often the first ``taken`` are repeated, ``stride`` further on each time."""
    n = len(found) // taken
    repeated = found[: n * taken].reshape(n, taken)
    wanted = repeated[0] + stride * np.arange(n)[:, None]
    differs = np.flatnonzero((repeated != wanted).any(axis=1))
    return int(differs[0]) if len(differs) else n


def _axes(runs: Sequence[tuple[int, Loops]], n: int) -> Iterator[list[int]]:
    """The sizes of axes, the slowest first, of which every loop may be a range of one."""
    cuts = {1, n, *(stride for _, loops in runs for _, stride in loops)}
    whole = {count * stride for _, loops in runs for count, stride in loops}
    for cut in (sorted(cuts | {size for size in whole if n % size == 0}), sorted(cuts)):
        if all(larger % smaller == 0 for smaller, larger in pairwise(cut)):
            yield [larger // smaller for smaller, larger in pairwise(cut)][::-1]


def _names(sizes: Sequence[int]) -> list[str]:
    """A word for each axis: its size, with zeros before it where another one has that size."""
    names: list[str] = []
    for size in sizes:
        name = str(size)
        while name in names:
            name = f"0{name}"
        names.append(name)
    return names


def _part(begin: int, loops: Loops, sizes: Sequence[int], names: Sequence[str]) -> str | None:
    """A run behind the arrow, with the places of each axis that it takes."""
    strides = [int(np.prod(sizes[i + 1 :], dtype=np.int64)) for i in range(len(sizes))]
    taken: dict[int, tuple[int, int]] = {}  # axis: first place, count
    behind: list[int] = []
    for count, stride in loops:
        axes = _spanned(count, stride, sizes, strides)
        if axes is None or any(axis in taken for axis, _ in axes):
            return None
        taken |= {axis: (0, n) for axis, n in axes}
        behind += [axis for axis, _ in axes]
    left = [axis for axis in range(len(sizes)) if axis not in taken]
    words, rest = {}, begin
    for axis, stride in enumerate(strides):
        first, rest = divmod(rest, stride)
        count = taken[axis][1] if axis in taken else 1
        if first + count > sizes[axis]:
            return None
        words[axis] = names[axis] + _places(first, count, sizes[axis])
    return " ".join(words[axis] for axis in [*left, *behind])


def _spanned(count: int, stride: int, sizes: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]] | None:
    """The axes that a loop runs over, the slowest first, and how many places of each."""
    if stride not in strides:
        return None
    axes: list[tuple[int, int]] = []
    axis = strides.index(stride)
    while count > 1 and axis >= 0:
        if count <= sizes[axis]:
            return [(axis, count), *axes]
        if count % sizes[axis]:
            return None
        axes.insert(0, (axis, sizes[axis]))
        count //= sizes[axis]
        axis -= 1
    return axes if count == 1 else None


def _places(first: int, count: int, size: int) -> str:
    if count == size:
        return ""
    return f"={first}" if count == 1 else f"={first}:{first + count}"


_MAX_AXES: Final = 4


def permuting_texts(n: int) -> Iterator[str]:
    """Every order of all ``n`` that only turns up to four axes round, itself first."""
    yield ""
    for sizes in _factored(n):
        names = _names(sizes)
        for turned in permutations(range(len(sizes))):
            if _turns_every_neighbour(turned):
                yield f"{' '.join(names)} -> {' '.join(names[axis] for axis in turned)}"


def _turns_every_neighbour(turned: Sequence[int]) -> bool:
    """Whether no two axes stay behind each other: together they would be one."""
    return all(after != before + 1 for before, after in pairwise(turned))


def _factored(n: int, n_axes: int = _MAX_AXES) -> Iterator[tuple[int, ...]]:
    """The ways to write ``n`` as a product of two or more sizes above 1, at most ``n_axes``."""
    for first in range(2, n // 2 + 1):
        if n % first == 0:
            yield first, n // first
            if n_axes > 2:
                yield from ((first, *rest) for rest in _factored(n // first, n_axes - 1))
