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


def test_a_difference_in_one_direction_is_no_rounding() -> None:
    expected = np.zeros(200)
    noise = np.where(np.arange(200) % 2, 0.04, -0.04)
    assert agree(noise, expected, "bfloat16")
    assert agree(expected + 0.004, expected, "bfloat16")
    assert not agree(expected + 0.006, expected, "bfloat16")
    assert not agree(noise + 0.02, expected, "bfloat16")
    assert not agree(noise - 0.02, expected, "bfloat16")
    # Of one row of several: over all tokens it would be 0.004.
    one = np.where(np.arange(200) < 40, 0.02, 0.0)
    lengths = np.array([40, 160])
    assert agree(one, expected, "bfloat16")
    assert not agree(one, expected, "bfloat16", lengths)
    # A row of one token says as little as that token.
    short = noise.copy()
    short[0] = 0.125
    assert agree(short, expected, "bfloat16", np.array([1, 0, 199]))
    assert agree(np.zeros(0), np.zeros(0), "bfloat16", np.array([0]))


class Looking:
    """Its logits at a place are one-hot of the sum of the tokens from `first` to `last` off it."""

    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=50))

    def __init__(self, first: int, last: int, dtype: str) -> None:
        self.first, self.last = first, last
        self.dtype = getattr(torch, dtype)

    def __call__(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        logits = torch.stack([self.of_row(ids) for ids in input_ids.tolist()])
        return SimpleNamespace(logits=logits.to(self.dtype))

    def of_row(self, ids: list[int]) -> Tensor:
        seen = [sum(ids[max(0, i + self.first) : i + self.last + 1]) % 50 for i in range(len(ids))]
        return torch.eye(50)[seen] * 5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("first", "last", "ahead"),
    [(-30, 0, False), (-1, -1, False), (-30, 1, True), (0, 1, True), (-30, 30, True)],
)
def test_sight_of_one_token_is_enough(dtype: str, first: int, last: int, ahead: bool) -> None:
    model: Any = Looking(first, last, dtype)
    assert sees_ahead(model, torch.arange(3, 23)) is ahead
    assert sees_ahead(model, torch.tensor([4, 4])) is ahead


class Leaking(Looking):
    """One logit of 50,000 has the next token in sight; another token is never said."""

    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=50_000))

    def of_row(self, ids: list[int]) -> Tensor:
        logits = torch.zeros(len(ids), 50_000)
        logits[:-1, 7] = torch.tensor(ids[1:]) * 0.01
        logits[:, 11] = -torch.inf
        return logits


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_leak_into_one_logit_of_many_is_seen(dtype: str) -> None:
    model: Any = Leaking(0, 0, dtype)
    assert sees_ahead(model, torch.arange(3, 23))


class Neighbourly(Looking):
    """A causal model whose last bits go by what else is in the batch, as experts' do."""

    noise = 0.01

    def __call__(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        logits = super().__call__(input_ids, use_cache).logits
        steps = torch.arange(50) * (int(input_ids.sum()) % 7)
        return SimpleNamespace(logits=logits + (steps % 5 * self.noise).to(self.dtype))


class Stirred(Neighbourly):
    """Sight of the next token beside noise that is far smaller."""

    noise = 1e-3


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounding_that_goes_by_the_neighbours_is_no_sight(dtype: str) -> None:
    row = torch.arange(3, 23)
    causal: Any = Neighbourly(-30, 0, dtype)
    assert not sees_ahead(causal, row)
    looking: Any = Stirred(0, 1, dtype)
    assert sees_ahead(looking, row)
