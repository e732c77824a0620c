"""What is said of a tensor whose numbers were compared, block by block."""

import numpy as np
import pytest

from converter.verification.sums import ProductSums, RoundedSums
from converter.verification.tensor_proof import TensorCheck, TensorProof

HALF_A_STEP = 2.0**-11  # of F16, for numbers from 1 to 2


def judged(off: float, kept: float | None) -> TensorCheck:
    """A weight whose first number is off by so many halves of a step, and that holds so much of a delta of 64 steps."""
    base, delta = np.ones((4, 3)), 0.0 if kept is None else 128 * HALF_A_STEP
    served = base + delta
    stored = base + (kept or 0) * delta
    stored[0, 0] += off * HALF_A_STEP
    sums = RoundedSums("F16")
    for rows in (slice(0, 1), slice(1, 4)):
        sums.add(stored[rows], served[rows], None if kept is None else base[rows])
    return sums.judged("blk.0.x", "w", touched=kept is not None)


def test_a_number_may_be_off_by_half_a_step() -> None:
    assert judged(0.9, None).fault is None
    fault = str(judged(1.5, None).fault)
    assert fault.startswith("is off from PEFT's w by 1.")
    assert fault.endswith("times what F16 allows")
    assert judged(float("nan"), None).fault == "is off from PEFT's w by nan times what F16 allows"


def test_more_roundings_allow_more() -> None:
    sums, values = RoundedSums("F16", n_roundings=4), np.ones((2, 3))
    sums.add(values + 3.9 * HALF_A_STEP, values, None)
    assert sums.judged("t", "w", touched=False).fault is None
    sums.add(values + 4.1 * HALF_A_STEP, values, None)
    assert sums.judged("t", "w", touched=False).fault


@pytest.mark.parametrize("kept", [0.0, 0.4, 1.6, 2.0])
def test_a_type_without_a_bound_still_keeps_the_delta(kept: float) -> None:
    base, delta = np.ones((4, 3)), np.full((4, 3), 0.25)
    sums = RoundedSums("Q4_K")
    sums.add(base + kept * delta, base + delta, base)
    check = sums.judged("t", "w", touched=True)
    assert check.error is None
    assert check.kept == pytest.approx(kept)
    assert check.fault == f"holds {kept:.3g} of the delta of w in Q4_K, wanted 1"


@pytest.mark.parametrize(
    ("is_replaced", "fault"), [(True, None), (False, "holds 0 of the delta of w in F16, wanted 1")]
)
def test_what_is_brought_whole_may_differ_by_no_more_than_rounding(is_replaced: bool, fault: str | None) -> None:
    """The weight that a base was rounded from is such a one; a delta is to be there, however small."""
    served = np.ones((4, 3)) + 0.6 * HALF_A_STEP
    sums = RoundedSums("F16", is_replaced=is_replaced)
    sums.add(np.ones((4, 3)), served, np.ones((4, 3)))
    check = sums.judged("t", "w", touched=True)
    assert check.error == pytest.approx(0.6, rel=1e-2)
    assert check.fault == fault


def test_what_is_brought_whole_and_differs_more_is_to_be_there() -> None:
    sums = RoundedSums("Q4_K", is_replaced=True)  # a type without a bound
    sums.add(np.ones((4, 3)), np.full((4, 3), 1.5), np.ones((4, 3)))
    assert sums.judged("t", "w", touched=True).fault
    sums = RoundedSums("F16", is_replaced=True)
    sums.add(np.ones((4, 3)), np.full((4, 3), 1.5), np.ones((4, 3)))
    assert sums.judged("t", "w", touched=True).fault


def test_a_product_is_judged_by_its_relative_error() -> None:
    wanted = np.array([[3.0, 4.0]])
    for error, fault in ((0.001, None), (0.02, "differs from PEFT's by 0.02 of its size")):
        sums = ProductSums()
        sums.add(wanted * (1 + error), wanted)
        assert sums.judged("t", "F16", {"F16": 4e-3}).fault == fault


def test_where_no_product_is_wanted_there_must_be_none() -> None:
    sums = ProductSums()
    sums.add(np.zeros((2, 2)), np.zeros((2, 2)))
    assert sums.judged("t", "F16", {}).fault is None
    for found in (1e-30, float("nan")):
        sums.add(np.full((2, 2), found), np.zeros((2, 2)))
        assert sums.judged("t", "F16", {}).fault == "is not 0, as PEFT's is"


def test_a_proof_sums_up_its_checks() -> None:
    proof = TensorProof(
        (
            TensorCheck("a", "numbers", "F16", touched=True, error=0.5, kept=0.9),
            TensorCheck("b", "bytes", "F32"),
            TensorCheck("c", "numbers", "F16", touched=True, error=0.8, kept=1.1),
            TensorCheck("d", "nothing", fault="is missing"),
        )
    )
    assert proof.faults == ("d is missing",)
    assert (proof.error, proof.kept) == (0.8, (0.9, 1.1))
    assert (proof.n_by("numbers"), proof.n_by("bytes"), proof.n_by("nothing")) == (2, 1, 1)
