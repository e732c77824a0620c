"""Orders as text, found from their numbers: every order that a table has is one."""

import numpy as np
import pytest

from converter.architectures import TABLES, _load
from converter.matching.texts import order_text, permuting_texts
from converter.orders import order
from converter.values.orders import indices


def _size(written: str, dims: dict[str, int]) -> int:
    """A number of rows that the order fits, with 22 for what is left."""
    sizes = ([dims.get(axis, 22) if axis.isidentifier() else int(axis) for axis in section.partition("->")[0].split()]
             for section in written.split("|"))  # fmt: skip
    return sum(int(np.prod(section)) for section in sizes)


@pytest.mark.parametrize("table", TABLES)
def test_every_order_of_a_table_is_found(table: str) -> None:
    places = [place for places in _load(table).modules.values() for place in places]
    dims = {"n_head": 4, "n_head_kv": 2, **{dim: 3 + i for i, dim in enumerate(sorted(_load(table).dims))}}
    dims |= {"lin_qk": 28, "lin_n_key": 5, "lin_group": 3, "mla_nope": 9, "mla_kv": 23, "lin_parts": 8, "lin_z": 5}
    for written in {text for place in places for text in (place.rows, place.columns) if text}:
        n = _size(written, dims)
        wanted = indices(order(written, n, dims), n)
        text = order_text(wanted, n)
        assert text
        np.testing.assert_array_equal(indices(order(text, n, {}), n), wanted)


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("4 2 _ -> 4 _ 2", "4 2 8 -> 4 8 2"),
        ("4 04 4000 -> 04 4 4000", "4 04 4000 -> 04 4 4000"),
        ("_", ""),
        ("60 | 4 -> 4=1:3", "64 -> 64=0:60 & 64=61:63"),
    ],
)
def test_a_text_has_sizes_in_place_of_names(written: str, text: str) -> None:
    n = {"4 04 4000 -> 04 4 4000": 64000}.get(written, 64)
    assert order_text(indices(order(written, n, {}), n), n) == text


def test_numbers_without_an_order_have_no_text() -> None:
    numbers = np.random.default_rng(0)
    assert order_text(numbers.permutation(64), 64) is None
    exchanged = np.arange(64)
    exchanged[[3, 40]] = exchanged[[40, 3]]
    assert order_text(exchanged, 64) is None


def test_each_order_that_turns_axes_is_tried_once() -> None:
    found = [tuple(indices(order(text, 24, {}), 24).tolist()) for text in permuting_texts(24)]
    assert len(found) == len({*found})
    assert found[0] == tuple(range(24))
    assert tuple(indices(order("2 3 4 -> 2 4 3", 24, {}), 24).tolist()) in found
