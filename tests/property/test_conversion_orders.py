"""Gathering rows commutes with B @ A: why one order serves a weight and its lora_B, and lora_A never moves."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from converter.row_orders import InterleaveRope, indices

SIZES = st.integers(1, 6)


@given(n_head=SIZES, half=SIZES, rank=SIZES, n_columns=SIZES, seed=st.integers(0, 2**32))
def test_gathering_commutes_with_the_product(n_head: int, half: int, rank: int, n_columns: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    n_rows = n_head * 2 * half
    order = indices(InterleaveRope(n_head), n_rows)
    weight = random.integers(-9, 9, (n_rows, n_columns))
    left, right = random.integers(-9, 9, (n_rows, rank)), random.integers(-9, 9, (rank, n_columns))
    assert np.array_equal((weight + left @ right)[order], weight[order] + left[order] @ right)


@given(n_head=SIZES, half=SIZES)
def test_an_order_is_a_permutation_within_each_head(n_head: int, half: int) -> None:
    rows = indices(InterleaveRope(n_head), n_head * 2 * half).reshape(n_head, 2 * half)
    for head, found in enumerate(rows.tolist()):
        assert sorted(found) == list(range(head * 2 * half, (head + 1) * 2 * half))
