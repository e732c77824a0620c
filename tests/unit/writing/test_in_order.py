"""Tasks that run at the same time: their results in order, few ahead, and an end at the first that fails."""

import threading
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest

from converter.writing.in_order import in_order


def slow(number: int) -> Callable[[], int]:
    def task() -> int:
        time.sleep(0.01 if number % 3 == 0 else 0.0)
        return number

    return task


@pytest.mark.parametrize("n", [1, 2, 4])
def test_results_come_in_the_order_of_the_tasks(n: int) -> None:
    assert list(in_order(map(slow, range(50)), n)) == list(range(50))


def test_two_tasks_run_at_once() -> None:
    meeting = threading.Barrier(2, timeout=10)
    assert len(list(in_order([meeting.wait, meeting.wait], 2))) == 2


def test_few_tasks_are_begun_before_their_results_are_wanted() -> None:
    begun: list[int] = []
    results = in_order((partial(begun.append, number) for number in range(1000)), 2)
    next(results)
    time.sleep(0.1)
    assert len(begun) < 10
    results.close()


@pytest.mark.parametrize("n", [1, 2])
def test_the_first_task_that_raises_ends_it(n: int) -> None:
    begun: list[int] = []

    def task(number: int) -> int:
        begun.append(number)
        if number == 5:
            raise ValueError(number)
        return number

    results = in_order((partial(task, number) for number in range(1000)), n)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="5"):
        next(results)
    assert len(begun) < 20


@pytest.mark.parametrize("n", [1, 2])
def test_a_number_that_overflows_is_left_to_the_task(n: int) -> None:
    """A warning of numpy's would be an error here, and a second message to users."""
    assert list(in_order([lambda: float(np.float32(1e38) * np.float32(10))], n)) == [float("inf")]
