"""What every order is, whatever its axes; and that gathering commutes with B @ A, which is why LoRA can follow it."""

from collections.abc import Mapping
from math import prod

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from converter.architectures import Place
from converter.orders import Order, order
from converter.values.orders import indices, inverse
from converter.verification.orders import columns_of_huggingface, rows_of_huggingface

AXES = ("a", "b", "c", "d")
SIZES = st.integers(1, 4)


@st.composite
def texts(draw: st.DrawFn, *, whole: bool = False) -> tuple[str, int, Mapping[str, int]]:
    """An order as tables write it, how many rows it is of, and the sizes that it names."""
    dims = {axis: draw(SIZES) for axis in AXES}
    sections, n = [], 0
    for _ in range(draw(st.integers(1, 3))):
        axes = draw(st.lists(st.sampled_from(AXES), min_size=1, max_size=4, unique=True))
        sections.append(f"{' '.join(axes)} -> {_behind(draw, axes, dims, whole)}")
        n += prod(dims[axis] for axis in axes)
    return " | ".join(sections), n, dims


def _behind(draw: st.DrawFn, axes: list[str], dims: dict[str, int], whole: bool) -> str:
    """All of them in an order, or up to a place of one axis and then what is left of it."""
    axis = draw(st.sampled_from(axes))
    at = draw(st.integers(0, dims[axis]))
    if 0 < at < dims[axis] and draw(st.booleans()):
        first = draw(st.sampled_from(("0", "")))
        halves = [{axis: f"{axis}={first}:{at}"}, {axis: f"{axis}={at}:"}]
        return " & ".join(" ".join(half.get(a, a) for a in draw(st.permutations(axes))) for half in halves)
    return " ".join(_kept(draw, a, dims, whole) for a in draw(st.permutations(axes)))


def _kept(draw: st.DrawFn, axis: str, dims: Mapping[str, int], whole: bool) -> str:
    return axis if whole or draw(st.booleans()) else f"{axis}={draw(st.integers(0, dims[axis] - 1))}"


def _random(shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    return np.random.default_rng(sum(shape)).integers(-9, 9, shape)


@given(texts(whole=True))
def test_an_order_of_all_rows_is_a_permutation_and_its_inverse_undoes_it(case: tuple[str, int, dict[str, int]]) -> None:
    text, n, dims = case
    found = order(text, n, dims)
    assert sorted(indices(found, n)) == list(range(n))
    assert np.array_equal(np.arange(n)[indices(found, n)][inverse(found, n)], np.arange(n))


@given(texts())
def test_a_part_has_no_row_twice_and_as_many_as_it_says(case: tuple[str, int, dict[str, int]]) -> None:
    text, n, dims = case
    found = order(text, n, dims)
    rows = indices(found, n).tolist()
    assert len({*rows}) == len(rows) == found.count(n)
    assert {*rows} <= {*range(n)}


@given(rows=texts(), columns=texts(whole=True), rank=SIZES)
def test_gathering_commutes_with_the_product(
    rows: tuple[str, int, dict[str, int]], columns: tuple[str, int, dict[str, int]], rank: int
) -> None:
    of_rows, of_columns = _indices(rows), _indices(columns)
    weight, left, right = _random((rows[1], columns[1])), _random((rows[1], rank)), _random((rank, columns[1]))
    gathered = (weight + left @ right)[of_rows][:, of_columns]
    assert np.array_equal(gathered, weight[of_rows][:, of_columns] + left[of_rows] @ right[:, of_columns])


def _indices(case: tuple[str, int, dict[str, int]]) -> npt.NDArray[np.int64]:
    return indices(order(*case), case[1])


@given(texts())
def test_verification_reads_an_order_as_conversion_does(case: tuple[str, int, dict[str, int]]) -> None:
    text, n, dims = case
    wanted = indices(order(text, n, dims), n)
    place = Place("m", "t", ("n", "n"), text, text)
    found = rows_of_huggingface(place, {**dims, "n": n}, (len(wanted), n), slice(0, len(wanted)))
    assert np.array_equal(np.arange(n)[found], wanted)
    assert np.array_equal(np.arange(n)[columns_of_huggingface(place, {**dims, "n": n})], wanted)


def test_an_order_that_leaves_all_as_it_is_counts_all() -> None:
    assert Order().count(7) == 7
    assert indices(Order(), 7).tolist() == inverse(Order(), 7).tolist() == list(range(7))
