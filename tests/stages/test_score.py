"""Scores and ranks from hand-made statistics, against numbers worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from handmade import commit_run, full_id, make_step

from engine.config import Config
from engine.stages import score


def scored(tmp_path: Path, *shards: dict, config: Config | None = None):
    step = make_step(tmp_path, "score", "7-score", config)
    first = 0
    for number, shard in enumerate(shards):
        commit_run(step, f"part-0000{number}.parquet", first, **shard)
        first += len(shard["ids"])
    outcome = score.run(step, nodes=None)
    rows = [r for s in step.shards() for r in step.read(step.folder, s).to_pylist()]
    return rows, outcome


TWO_SHARDS = (
    {
        "ids": ["a", "b", "c"],
        "clusters": [0, 0, None],
        "sums": [
            [4 * math.log(8), 2 * math.log(10), None],
            [4 * math.log(2), 2 * math.log(9), None],
        ],
        "counts": [4, 2, None],
        "flags": ["ok", "ok", "empty_response"],
    },
    {
        "ids": ["d", "e"],
        "clusters": [1, 0],
        "sums": [[math.log(4), math.log(6)], [math.log(5), math.log(3)]],
        "counts": [1, 1],
        "flags": ["ok", "ok"],
    },
)


def test_hand_worked_scores_and_ranks_over_two_shards(tmp_path: Path) -> None:
    rows, outcome = scored(tmp_path, *TWO_SHARDS)
    by_id = {i: row for row in rows for i in "abcde" if row["id"] == full_id(i)}
    assert by_id["a"]["ppl_0"] == pytest.approx(8)
    assert by_id["a"]["ppl_1"] == pytest.approx(2)
    assert by_id["a"]["lp_app_1"] == pytest.approx(0.75)
    assert by_id["b"]["lp_app_1"] == pytest.approx(0.1)
    assert by_id["d"]["lp_app_1"] == pytest.approx(-0.25)
    assert by_id["e"]["lp_app_1"] == pytest.approx(0.5)
    # cluster 0 in order of LP_app: b, e, a; cluster 1 holds d alone
    assert {i: by_id[i]["rank_in_cluster"] for i in "abde"} == {"b": 0, "e": 1, "a": 2, "d": 0}
    assert outcome.flags == {"ok": 4, "empty_response": 1}


def test_a_row_without_a_scored_token_has_no_score(tmp_path: Path) -> None:
    rows, _ = scored(tmp_path, *TWO_SHARDS)
    (empty,) = [row for row in rows if row["id"] == full_id("c")]
    for name in ("mean_nll_0", "ppl_0", "ppl_1", "lp_app_1", "rank_in_cluster", "cluster"):
        assert empty[name] is None, name


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e4])
def test_numbers_that_are_none_are_flagged_and_never_ranked(tmp_path: Path, bad: float) -> None:
    """NaN, infinity, and a mean NLL whose perplexity overflows float64."""
    rows, outcome = scored(
        tmp_path,
        {
            "ids": ["a", "b"],
            "clusters": [0, 0],
            "sums": [[1.0, bad], [0.5, 1.0]],
            "counts": [1, 1],
            "flags": ["ok", "ok"],
        },
    )
    assert [row["flag"] for row in rows] == ["ok", "not_finite"]
    assert [row["rank_in_cluster"] for row in rows] == [0, None]
    assert rows[1]["lp_app_1"] is None
    assert outcome.flags == {"ok": 1, "not_finite": 1}


def test_rows_that_a_stage_gave_up_say_which_and_are_never_ranked(tmp_path: Path) -> None:
    """Null in 3-cluster, 4-tokens, or 5-perplexity before or after; the first failure is told."""
    rows, outcome = scored(
        tmp_path,
        {
            "ids": ["a", "b", "c", "d", "e", "f"],
            "clusters": [0, None, 0, 0, None, 0],
            "sums": [[2.0, 2.0, None, None, None, 2.0], [1.0, 1.0, None, 1.0, None, None]],
            "counts": [1, 1, None, 1, 1, 1],
            "flags": ["ok", "ok", "tokenising_failed", "ok", "ok", "ok"],
        },
        {
            "ids": ["aa"],
            "clusters": [0],
            "sums": [[2.0], [1.9]],
            "counts": [1],
            "flags": ["ok"],
        },
    )
    assert [row["flag"] for row in rows] == [
        "ok",
        "embedding_failed",
        "tokenising_failed",
        "scoring_failed",
        "embedding_failed",
        "scoring_failed",
        "ok",
    ]
    assert [row["rank_in_cluster"] for row in rows] == [1, None, None, None, None, None, 0]
    for row in rows[1:6]:
        for name in ("mean_nll_0", "mean_nll_1", "ppl_0", "ppl_1", "lp_app_1"):
            assert row[name] is None, f"{row['id']}: {name}"
    assert outcome.flags == {
        "ok": 2,
        "embedding_failed": 2,
        "tokenising_failed": 1,
        "scoring_failed": 2,
    }


def test_two_epochs_add_columns_and_lp(tmp_path: Path) -> None:
    config = Config.from_tree({"proxy": {"name": "hand"}, "finetune": {"num_epochs": 2}})
    ln = math.log
    rows, _ = scored(
        tmp_path,
        {
            "ids": ["a", "b"],
            "clusters": [0, 0],
            "sums": [[ln(10), ln(7)], [ln(6), ln(9)], [ln(2), ln(7)]],
            "counts": [1, 1],
            "flags": ["ok", "ok"],
        },
        config=config,
    )
    assert rows[0]["lp_app_2"] == pytest.approx(0.8)
    assert rows[0]["lp_1"] == pytest.approx(0.5)  # (10 - 6) / (10 - 2)
    assert rows[0]["lp_2"] == pytest.approx(0.5)
    # P_0 = P_n: LP is undefined, LP_app is not, so the row stays scored
    assert rows[1]["lp_1"] is None
    assert rows[1]["flag"] == "ok"
    assert rows[1]["lp_app_1"] == pytest.approx((7 - 9) / 7)
