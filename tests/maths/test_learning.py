"""Learning percentages: hand-worked values, extremes, and the numbers published with the paper."""

from __future__ import annotations

import math
import os
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import kendalltau

from engine.maths import learning


def logs(*perplexities: float) -> np.ndarray:
    return np.log(np.array(perplexities))


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────


def test_lp_app_is_the_relative_drop_of_perplexity() -> None:
    # (8 - 2) / 8, (10 - 10) / 10, (4 - 6) / 4
    found = learning.lp_app(logs(8, 10, 4), logs(2, 10, 6))
    np.testing.assert_allclose(found, [0.75, 0.0, -0.5], rtol=1e-14, atol=0)


def test_lp_is_the_epochs_part_of_all_that_was_learnt() -> None:
    # Perplexities 20 → 12 → 8 → 4, and 10 → 11 → 7 → 6.
    nlls = [logs(20, 10), logs(12, 11), logs(8, 7), logs(4, 6)]
    np.testing.assert_allclose(learning.lp(nlls, 1), [8 / 16, -1 / 4], rtol=1e-14)
    np.testing.assert_allclose(learning.lp(nlls, 2), [4 / 16, 4 / 4], rtol=1e-14)
    np.testing.assert_allclose(learning.lp(nlls, 3), [4 / 16, 1 / 4], rtol=1e-14)


def test_lp_of_all_epochs_sums_to_one() -> None:
    nlls = list(np.random.default_rng(0).uniform(0.5, 6.0, size=(4, 200)))
    total = sum(learning.lp(nlls, i) for i in (1, 2, 3))
    np.testing.assert_allclose(total, 1.0, rtol=1e-8)


@pytest.mark.parametrize("epoch", [0, 3, -1])
def test_lp_refuses_epochs_that_were_not_trained(epoch: int) -> None:
    with pytest.raises(ValueError, match=f"epoch {epoch} is not among 1 … 2"):
        learning.lp([logs(3), logs(2), logs(1)], epoch)


def test_perplexity_is_exp_and_infinite_where_that_overflows() -> None:
    found = learning.perplexity(np.array([0.0, math.log(7.0), 710.0]))
    np.testing.assert_allclose(found, [1.0, 7.0, np.inf], rtol=1e-15)


# ── extremes ─────────────────────────────────────────────────────────────────────────────────────


def test_lp_app_keeps_its_digits_at_extremes() -> None:
    before = np.array([700.0, 1.0, 3.0, 3.0, 20.0, 20.0])
    after = np.array([1.0, 700.0, 3.0, 3.0 - 1e-12, 20.0 - 1e-12, 20.0 + 1e-9])
    found = learning.lp_app(before, after)
    assert found[0] == 1.0  # all of e^700 was learnt
    assert found[1] == pytest.approx(-math.expm1(699.0), rel=1e-15)
    assert found[2] == 0.0
    # The differences as the inputs hold them; (P_0 - P_1) / P_0 has four digits of them at best.
    for index, tiny in ((3, 3.0 - after[3]), (4, 20.0 - after[4]), (5, 20.0 - after[5])):
        assert found[index] == pytest.approx(tiny - tiny**2 / 2, rel=1e-12)
        assert found[index] != 0.0


def test_lp_stays_finite_where_perplexities_overflow() -> None:
    nlls = [np.array([800.0]), np.array([799.0]), np.array([798.0])]
    expected = (1 - math.exp(-1)) / (1 - math.exp(-2))
    assert learning.lp(nlls, 1)[0] == pytest.approx(expected, rel=1e-14)


def test_lp_is_not_finite_where_nothing_was_learnt_in_all() -> None:
    nlls = [np.array([2.0, 2.0, 2.0]), np.array([2.0, 1.0, 3.0]), np.array([2.0, 2.0, 2.0])]
    found = learning.lp(nlls, 1)
    assert np.isnan(found[0])  # 0 / 0
    assert np.isinf(found[1:]).all()


# ── published perplexities ───────────────────────────────────────────────────────────────────────
# Seven models' P_0 … P_3 over Dolly, as published with the paper. An unscored row (no response
# token left) has the perplexity 1 exactly, which the published code turns into a score of 0.

TEACHER = "opt-13b"
# Kendall's tau against OPT-13B: (unscored rows as 0, unscored rows left out)
LP_TAU = {
    "opt-350m": (0.590, 0.559),
    "opt-1.3b": (0.675, 0.650),  # 0.65045
    "opt-2.7b": (0.721, 0.700),
    "opt-6.7b": (0.787, 0.771),
}
LP_APP_TAU = {
    "opt-350m": (0.627, 0.599),
    "opt-1.3b": (0.715, 0.693),
    "opt-2.7b": (0.769, 0.752),
    "opt-6.7b": (0.852, 0.841),
}
# LP(1) against LP_app(1) of the same model, unscored rows as 0.
LP_AGAINST_LP_APP = {
    "opt-1.3b": 0.647,
    "opt-2.7b": 0.637,
    "opt-6.7b": 0.624,
    "opt-13b": 0.635,
    "llama2-7b": 0.583,
    "llama2-13b": 0.545,
}


def reference_folder() -> Path:
    """Where the published perplexities lie; the test is skipped where they are not."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "reference"
    folder = Path(os.environ.get("POOLSCORE_REFERENCE") or beside) / "perplexities"
    if not folder.is_dir():
        pytest.skip("the published perplexities are not here: set POOLSCORE_REFERENCE")
    return folder


@cache
def published(folder: Path, model: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """LP(1) and LP_app(1) of every row, and which rows are scored."""
    table = pq.read_table(folder / f"dolly-{model}.parquet")
    perplexities = [table[f"p{i}"].to_numpy() for i in range(4)]
    scored = perplexities[0] != 1.0
    nlls = [np.log(p) for p in perplexities]
    return learning.lp(nlls, 1), learning.lp_app(nlls[0], nlls[1]), scored


def taus(
    one: np.ndarray, other: np.ndarray, scored_one: np.ndarray, scored_other: np.ndarray
) -> tuple[float, float]:
    """Kendall's tau to three digits: unscored rows as 0, and rows unscored in either left out."""
    as_zero = kendalltau(np.where(scored_one, one, 0.0), np.where(scored_other, other, 0.0))
    both = scored_one & scored_other
    left_out = kendalltau(one[both], other[both])
    return round(as_zero.statistic, 3), round(left_out.statistic, 3)


@pytest.mark.parametrize("model", LP_TAU)
def test_published_scores_agree_with_opt_13b_as_published(model: str) -> None:
    folder = reference_folder()
    lp, lp_app, scored = published(folder, model)
    teacher_lp, teacher_lp_app, teacher_scored = published(folder, TEACHER)
    assert taus(lp, teacher_lp, scored, teacher_scored) == LP_TAU[model]
    assert taus(lp_app, teacher_lp_app, scored, teacher_scored) == LP_APP_TAU[model]


@pytest.mark.parametrize("model", LP_AGAINST_LP_APP)
def test_published_lp_agrees_with_lp_app_as_published(model: str) -> None:
    lp, lp_app, scored = published(reference_folder(), model)
    assert taus(lp, lp_app, scored, scored)[0] == LP_AGAINST_LP_APP[model]


@pytest.mark.parametrize(("model", "num_unscored"), [("opt-350m", 544), ("llama2-7b", 765)])
def test_every_scored_row_of_the_published_ones_has_finite_scores(
    model: str, num_unscored: int
) -> None:
    lp, lp_app, scored = published(reference_folder(), model)
    assert (len(scored), (~scored).sum()) == (15_011, num_unscored)
    assert np.isfinite(lp[scored]).all()
    assert np.isnan(lp[~scored]).all()
    assert np.isfinite(lp_app).all()
