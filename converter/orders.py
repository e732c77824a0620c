"""Orders of rows and of columns: which of the Hugging Face weight's each one of the GGUF weight is.

A table writes an order as axes, those of the Hugging Face weight before the arrow and GGUF's behind it, as in einops:

    n_head 2 _ -> n_head _ 2     within each head the two halves are interleaved (LlamaModel.permute)
    2 _ -> 2=0 _                 only the first of two halves (the gate of fused gate and up)
    k | n_key _ -> _ n_key       the first k stay where they are, the others are a matrix that is turned round
    n 5 _ -> 5=0 n _ & n 5=1:3 _   of each of n the first fifth, then of each the second and third

A size is a number, the name of a dimension, or ``_`` for what is left, once and last. All of these are nested loops,
and so data.

Rows of B @ A are gathered by gathering rows of B alone, its columns by gathering columns of A: one order serves weight,
bias, lora_B and lora_A.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from typing import Final, NamedTuple


class Run(NamedTuple):
    """``begin`` plus every sum of steps: ``loops`` are (count, stride), the slowest first."""

    begin: int
    loops: tuple[tuple[int, int], ...]

    @property
    def n(self) -> int:
        """How many it takes."""
        return prod(count for count, _ in self.loops)


class Order(NamedTuple):
    """``runs`` one behind the other; none where all stay where they are. ``text`` says it to a reader."""

    runs: tuple[Run, ...] = ()
    text: str = ""

    def count(self, n: int) -> int:
        """How many are left of ``n``."""
        return sum(run.n for run in self.runs) if self.runs else n


IDENTITY: Final = Order()


class Orders(NamedTuple):
    """Of a matrix: GGUF's order of rows, and of columns."""

    rows: Order = IDENTITY
    columns: Order = IDENTITY


def every(step: int, begin: int, n: int) -> Order:
    """Of ``n`` each ``step``-th from ``begin`` on: one expert's columns of a lora_B that holds all experts'."""
    count = len(range(begin, n, step))
    return Order((Run(begin, ((count, step),)),), f"every {step} from {begin}")


def order(text: str, n: int, dims: Mapping[str, int]) -> Order:
    """The order that a table's ``text`` asks for, of ``n`` rows or columns. Raises ValueError where it doesn't fit."""
    if not text:
        return IDENTITY
    runs: list[Run] = []
    begin = 0
    for axes, parts in _parsed(text):
        sizes = _sizes(axes, n - begin, dims)
        runs.extend(_run(begin, axes, kept, sizes, dims) for kept in parts)
        begin += prod(sizes)
    if begin != n:
        raise ValueError(f"the order {text!r} is of {begin} rows or columns, wanted {n}")
    return Order(tuple(runs), re.sub(r"\w+", lambda word: str(dims.get(word[0], word[0])), text))


def is_part(text: str) -> bool:
    """Whether a table's order takes only a part of the rows or columns."""
    return "=" in text


def axes_of(text: str) -> frozenset[str]:
    """The dimensions that a table's order names."""
    return frozenset(word for word in re.findall(r"\w+", text) if word.isidentifier() and word != "_")


Axes = tuple[str, ...]
Kept = tuple[tuple[str, str], ...]  # an axis behind the arrow, and which of its places: all, "1" or "2:4"


@lru_cache(maxsize=256)
def _parsed(text: str) -> tuple[tuple[Axes, tuple[Kept, ...]], ...]:
    return tuple(_section(section) for section in text.split("|"))


def _section(text: str) -> tuple[Axes, tuple[Kept, ...]]:
    before, arrow, behind = text.partition("->")
    axes = tuple(before.split())
    parts = tuple(tuple(map(_kept, part.split())) for part in (behind if arrow else before).split("&"))
    if len({*axes}) < len(axes) or any(sorted(axes) != sorted(axis for axis, _ in part) for part in parts):
        raise ValueError(f"the order {text!r} names an axis twice, or others behind its arrow than before it")
    return axes, parts


def _kept(word: str) -> tuple[str, str]:
    axis, _, places = word.partition("=")
    return axis, places


def _sizes(axes: Axes, n: int, dims: Mapping[str, int]) -> tuple[int, ...]:
    """The size of each axis, of which one may be what is left of ``n``."""
    known = [0 if axis == "_" else _number(axis, dims) for axis in axes]
    rest = n // prod(size for size in known if size)
    return tuple(size or rest for size in known)


def _number(word: str, dims: Mapping[str, int]) -> int:
    return dims[word] if word in dims else int(word)


def _run(begin: int, axes: Axes, kept: Kept, sizes: tuple[int, ...], dims: Mapping[str, int]) -> Run:
    strides = {axis: prod(sizes[i + 1 :]) for i, axis in enumerate(axes)}
    size = dict(zip(axes, sizes, strict=True))
    ranges = [(axis, _range(places, size[axis], dims)) for axis, places in kept]
    begin += sum(strides[axis] * places.start for axis, places in ranges)
    return Run(begin, tuple((len(places), strides[axis]) for axis, places in ranges if len(places) > 1))


def _range(places: str, size: int, dims: Mapping[str, int]) -> range:
    """The places of an axis that are taken."""
    first, colon, last = places.partition(":")
    begin = _number(first, dims) if first else 0
    end = _number(last, dims) if last else size if colon or not first else begin + 1
    return range(begin, end)
