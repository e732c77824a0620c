"""The text of an order, found from the numbers that the order gives."""

from collections.abc import Mapping

import pytest

from converter.architectures import TABLES, Architecture, _load
from converter.orders import order
from converter.values.orders import indices
from tools.order_texts import common, sections, text

DIMS = {"n_head": 4, "n_head_kv": 2, "lin_n_key": 5, "lin_group": 3, "lin_qk": 28}
OTHERS = {"n_head": 6, "n_head_kv": 3, "lin_n_key": 7, "lin_group": 4, "lin_qk": 44}


@pytest.mark.parametrize(
    "written",
    [
        "n_head 2 _ -> n_head _ 2",
        "n_head_kv 2 _ -> n_head_kv _ 2",
        "2 _ -> 2=0 _",
        "2 _ -> 2=1 _",
        "_ 2 -> _ 2=1",
        "_ 3 2 -> 3 _ 2=1",
        "lin_n_key lin_group _ -> lin_group lin_n_key _",
        "lin_qk | lin_n_key lin_group _ -> lin_group lin_n_key _",
    ],
)
def test_an_order_is_found_from_its_numbers(written: str) -> None:
    found = []
    for dims in (DIMS, OTHERS):
        n = _size(written, dims)
        found.append(sections(indices(order(written, n, dims), n), n, dims))
    first, second = found
    assert first
    assert second
    both = common(first, second)
    assert both
    assert text(both) == written


def test_numbers_without_an_order_have_no_text() -> None:
    shuffled = indices(order("2 _ -> _ 2", 12, {}), 12)
    shuffled[[3, 7]] = shuffled[[7, 3]]
    assert sections(shuffled, 12, {}) is None
    assert sections(indices(order("", 12, {}), 12), 12, {}) == ()


@pytest.mark.parametrize("table", TABLES)
def test_every_order_of_the_tables_is_one_that_is_found(table: str) -> None:
    for written in _orders(_load(table)):
        dims = {"n_head": 4, "n_head_kv": 2, **{dim: 3 + i for i, dim in enumerate(sorted(_load(table).dims))}}
        dims |= {"lin_qk": 28, "lin_n_key": 5, "lin_group": 3}
        n = _size(written, dims)
        wanted = indices(order(written, n, dims), n)
        found = sections(wanted, n, dims)
        if "&" in written or ":" in written:  # taken apart by hand
            assert found is None
            continue
        assert found
        assert indices(order(text(found), n, dims), n).tolist() == wanted.tolist()


def _orders(table: Architecture) -> set[str]:
    places = [place for places in table.modules.values() for place in places]
    return {written for place in places for written in (place.rows, place.columns) if written}


def _size(written: str, dims: Mapping[str, int]) -> int:
    """A number of rows that the order fits, with 22 for what is left."""
    n = 0
    for section in written.split("|"):
        size = 1
        for axis in section.partition("->")[0].split():
            size *= 22 if axis == "_" else dims[axis] if axis in dims else int(axis)
        n += size
    return n
