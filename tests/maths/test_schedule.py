"""Batch sizes and learning rates against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.maths import schedule
from engine.maths.schedule import ENOUGH_STEPS, chosen_batch_size, num_steps, num_warmup_steps, rate


def rates(total: int, warmup: int, kind: schedule.Schedule = "nonzero") -> list[float]:
    return [rate(step, total, warmup, kind) for step in range(total)]


@pytest.mark.parametrize(
    ("total", "warmup", "expected"),
    [
        (1, 0, [1.0]),
        (1, 1, [1.0]),  # where the published schedule trains at rate 0, and nothing else
        (2, 1, [1.0, 0.5]),
        (3, 0, [1.0, 0.75, 0.25]),
        (3, 1, [1.0, 0.75, 0.25]),
        (4, 2, [0.5, 1.0, 0.75, 0.25]),
        (3, 3, [1 / 3, 2 / 3, 1.0]),
        (5, 4, [0.25, 0.5, 0.75, 1.0, 0.5]),
    ],
)
def test_rates_by_hand(total: int, warmup: int, expected: list[float]) -> None:
    assert rates(total, warmup) == pytest.approx(expected, abs=1e-15)


@given(total=st.integers(1, 5000), fraction=st.floats(0, 1))
def test_no_step_trains_at_rate_0_and_one_has_the_peak(total: int, fraction: float) -> None:
    found = rates(total, num_warmup_steps(total, fraction))
    assert all(0 < each <= 1 for each in found)
    assert found.count(1.0) == 1
    peak = found.index(1.0)
    assert found[: peak + 1] == sorted(found[: peak + 1])
    assert found[peak:] == sorted(found[peak:], reverse=True)


@given(total=st.integers(1, 300), fraction=st.floats(0, 1))
def test_a_scheduler_may_ask_behind_the_last_step(total: int, fraction: float) -> None:
    for kind in ("nonzero", "published"):
        behind = rate(total, total, num_warmup_steps(total, fraction), kind)
        assert 0 <= behind <= 1


def test_the_published_schedule_by_hand() -> None:
    assert rates(1, 1, "published") == [0.0]
    assert rates(5, 1, "published") == pytest.approx(
        [0.0, 1.0, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125)]
    )
    assert rates(4, 2, "published") == pytest.approx([0.0, 0.5, 1.0, 0.5])
    assert rates(2, 0, "published") == pytest.approx([1.0, 0.5])


@pytest.mark.parametrize("total", [1, 2, 7, 33, 100])
@pytest.mark.parametrize("fraction", [0.0, 0.03, 0.5, 1.0])
def test_the_published_schedule_is_that_of_transformers(total: int, fraction: float) -> None:
    import torch
    from transformers import get_cosine_schedule_with_warmup

    warmup = num_warmup_steps(total, fraction)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = get_cosine_schedule_with_warmup(optimizer, warmup, total).lr_lambdas[0]
    assert rates(total, warmup, "published") == pytest.approx(
        [theirs(step) for step in range(total)], abs=1e-15
    )


@pytest.mark.parametrize(
    ("num_rows", "batch_size", "steps"),
    [
        (52_002, 96, 542),
        (2977, 96, 32),
        (2976, 64, 47),  # 96 rows would give 31 steps
        (1985, 64, 32),
        (1984, 32, 62),
        (1228, 32, 39),
        (993, 32, 32),
        (992, 16, 62),
        (300, 8, 38),
        (249, 8, 32),
        (248, 8, 31),
        (60, 8, 8),
        (1, 8, 1),
    ],
)
def test_a_small_pool_gets_smaller_batches(num_rows: int, batch_size: int, steps: int) -> None:
    assert chosen_batch_size(num_rows) == batch_size
    assert num_steps(num_rows, batch_size) == steps


@given(st.integers(1, 10_000))
def test_a_larger_pool_never_gets_smaller_batches(num_rows: int) -> None:
    size = chosen_batch_size(num_rows)
    assert size <= chosen_batch_size(num_rows + 1)
    assert size == 8 or num_steps(num_rows, size) >= ENOUGH_STEPS
