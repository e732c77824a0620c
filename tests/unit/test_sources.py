"""What is asked of sources."""

from converter.sources import Merged, Stacked, Zeros, has_delta

FACTOR = Zeros((2, 3))


def test_a_stack_of_factors_has_no_delta_to_lose() -> None:
    """A LoRA file of experts was said to hold tensors whose delta is zero."""
    assert not has_delta(Stacked((FACTOR, FACTOR)))
    assert has_delta(Stacked((FACTOR, Merged(FACTOR))))
