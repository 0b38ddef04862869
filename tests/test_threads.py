"""Work on threads: in order, a few items at a time, errors where their results would be."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from engine import threads
from engine.threads import in_order


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="on one core there is one thread")
def test_results_come_in_the_order_of_the_items_whichever_is_done_first() -> None:
    second_is_done = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            assert second_is_done.wait(10)
        if item == 1:
            second_is_done.set()
        return item * item

    assert list(in_order(work, range(50))) == [n * n for n in range(50)]


def test_no_items_are_no_results() -> None:
    assert list(in_order(str, [])) == []


def test_only_a_few_items_are_begun_before_their_results_are_taken() -> None:
    begun: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            begun.append(item)
            yield item

    results = in_order(str, items())
    assert [next(results), next(results)] == ["0", "1"]
    assert len(begun) <= 2 * threads.MAX_THREADS + 1
    results.close()


def test_an_error_comes_after_the_results_before_it_and_ends_the_work() -> None:
    seen: list[int] = []

    def work(item: int) -> int:
        seen.append(item)
        if item == 3:
            raise ValueError("three")
        return item

    taken: list[int] = []
    with pytest.raises(ValueError, match="three"):
        taken.extend(in_order(work, range(1000)))
    assert taken == [0, 1, 2]
    assert max(seen) < 1000 - 1
