"""Whether anything was learnt, from sums worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.maths.verdict import HARDLY, Change, is_untrained, verdict


def change(before: list[float], after: list[float], tokens: list[int]) -> Change:
    return Change.of(np.array(before), np.array(after), np.array(tokens))


NONE = Change()


def test_sums_of_shards_add_up() -> None:
    whole = change([6.0, 4.0, 9.0], [5.0, 4.0, 10.0], [3, 2, 5])
    assert whole == Change(3, 2, 10, 19.0, 19.0)
    assert whole == change([6.0], [5.0], [3]) + change([4.0, 9.0], [4.0, 10.0], [2, 5])
    assert (whole.loss_before, whole.loss_after) == (1.9, 1.9)
    assert math.isnan(NONE.loss_before)


def test_rows_without_a_number_hide_no_others() -> None:
    nan, inf = math.nan, math.inf
    assert change([2.0, nan, 3.0, inf], [1.0, 3.0, nan, 2.0], [2, 9, 9, 9]) == Change(
        1, 1, 2, 2.0, 1.0, 1
    )


def test_a_training_after_which_most_rows_have_no_number_diverged() -> None:
    nan = math.nan
    most = change([2.0, 2.0, 2.0], [nan, math.inf, 1.0], [1, 1, 1])
    assert (most.num_lost, most.num_rows) == (2, 1)
    assert verdict(most, NONE) == "diverged"
    assert verdict(change([2.0, 2.0], [nan, 1.0], [1, 1]), NONE) == "learnt"
    assert verdict(change([2.0], [1.0], [1]), change([2.0], [nan], [1])) == "learnt"


def test_nothing_is_learnt_where_no_row_changed_by_a_bit() -> None:
    same = change([6.0, 4.0], [6.0, 4.0], [3, 2])
    assert verdict(same, NONE) == "nothing"
    assert verdict(same, same) == "nothing"
    by_a_bit = change([4.0], [np.nextafter(4.0, 0)], [2])
    assert verdict(by_a_bit, NONE) == "hardly"
    assert verdict(same, by_a_bit) == "hardly"  # trained rows as before, held-out ones not


def test_the_loss_of_the_trained_rows_decides() -> None:
    fell = change([30.0], [20.0], [10])
    rose = change([20.0], [30.0], [10])
    assert verdict(fell, rose) == "learnt"
    assert verdict(rose, fell) == "rose"
    assert (
        verdict(change([20.0, 10.0], [10.0, 20.0], [10, 10]), NONE) == "hardly"
    )  # as much as fell


@pytest.mark.parametrize(
    ("fall", "expected"), [(0.9, "hardly"), (1.1, "learnt"), (-0.9, "hardly"), (-1.1, "rose")]
)
def test_a_change_of_two_percent_of_perplexity_is_hardly_any(fall: float, expected: str) -> None:
    assert verdict(change([500.0], [500.0 - 100 * HARDLY * fall], [100]), NONE) == expected


def test_no_rows_are_nothing_to_judge_by() -> None:
    assert verdict(NONE, NONE) == "learnt"
    assert verdict(change([math.nan], [math.nan], [3]), NONE) == "learnt"  # never had one


def test_an_untrained_model_guesses_among_the_vocabulary() -> None:
    assert is_untrained(math.log(8192), 8192)
    assert is_untrained(math.log(4097), 8192)
    assert not is_untrained(math.log(4095), 8192)
    assert not is_untrained(math.log(200), 8192)
    assert not is_untrained(math.nan, 8192)
    assert is_untrained(math.inf, 8192)
    assert not is_untrained(5.0, 0)  # a vocabulary that nobody knows
