"""The rows on which short cuts are tried, by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.maths.ragged import Ragged
from engine.maths.trial import agree, sees_ahead, trial_groups, trial_rows, trial_scored


def lists(ragged: Ragged) -> list[list[int]]:
    return [ragged[i].tolist() for i in range(len(ragged))]


def test_trial_rows_by_hand() -> None:
    rows = trial_rows(Ragged.of([[7, 8], np.arange(1, 9)]))
    assert lists(rows) == [
        [1, 2, 3, 4, 5, 6, 7, 8],
        [1, 2, 3, 4, 5, 6],
        [1, 2, 3, 4, 8, 7, 6, 5],
        [7, 8],
        [7, 8],
    ]
    groups = trial_groups(rows)
    assert groups is not None
    assert [(g.rows.tolist(), g.num_tokens) for g in groups] == [([0, 1, 2], 4), ([3, 4], 0)]
    assert lists(trial_scored(rows, groups)) == [[5, 6, 7], [5], [5, 6, 7], [1], [1]]


def test_short_rows_share_nothing() -> None:
    rows = trial_rows(Ragged.of([[1, 2, 3, 4, 5, 6, 7], [7, 8, 9, 10]]))
    assert rows.lengths.tolist() == [7, 5, 7, 4, 3]
    assert trial_groups(rows) is None


def test_agreement_is_of_each_token_in_float32_and_of_the_mean_in_bfloat16() -> None:
    expected = np.zeros(10)
    found = expected.copy()
    found[3] = 9e-5
    assert agree(found, expected, "float32")
    found[3] = 2e-4
    assert not agree(found, expected, "float32")
    found[3] = 0.25  # two steps of a logit of 20
    assert agree(found, expected, "bfloat16")
    assert not agree(expected + 0.15, expected, "bfloat16")
    found[3] = np.nan
    assert not agree(found, expected, "float32")
    assert not agree(found, expected, "bfloat16")
    assert agree(np.zeros(0), np.zeros(0), "bfloat16")


class Looking:
    """Its logits at a place are one-hot of the sum of the tokens from `first` to `last` off it."""

    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=50))

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last

    def __call__(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        ids = input_ids[0].tolist()
        seen = [sum(ids[max(0, i + self.first) : i + self.last + 1]) % 50 for i in range(len(ids))]
        return SimpleNamespace(logits=torch.eye(50)[seen][None] * 5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("first", "last", "ahead"),
    [(-30, 0, False), (-1, -1, False), (-30, 1, True), (0, 1, True), (-30, 30, True)],
)
def test_sight_of_one_token_is_enough(dtype: str, first: int, last: int, ahead: bool) -> None:
    model: Any = Looking(first, last)
    assert sees_ahead(model, torch.arange(3, 23), dtype) is ahead
    assert sees_ahead(model, torch.tensor([4, 4]), dtype) is ahead
