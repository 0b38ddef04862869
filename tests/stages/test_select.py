"""Which rows are candidates, and what the files hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from handmade import commit_run, full_id, make_step, reader

from engine.config import Config, SelectConfig
from engine.errors import ConfigError
from engine.stages import score, select
from engine.step import Step


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """Ten rows in two clusters of two shards; row 3 flagged, row 4 held out; LP falls with row."""
    scoring = make_step(tmp_path, "score", "7-score", Config.from_tree({"proxy": {"name": "hand"}}))
    for number in (0, 1):
        ids = [f"{number}{i}" for i in range(5)]
        flags = ["ok", "ok", "ok", "duplicate" if number == 0 else "ok", "ok"]
        splits = ["train", "train", "train", "train", "holdout" if number == 0 else "train"]
        present = [flag == "ok" for flag in flags]
        before = [10.0 if ok else None for ok in present]
        after = [1.0 + 5 * number + i if ok else None for i, ok in enumerate(present)]
        commit_run(
            scoring,
            f"part-0000{number}.parquet",
            5 * number,
            ids=ids,
            clusters=[i % 2 if ok else None for i, ok in enumerate(present)],
            sums=[before, after],
            counts=[1 if ok else None for ok in present],
            flags=flags,
            splits=splits,
        )
    score.run(scoring, nodes=None)
    return reader(scoring, "select", "8-select")


def test_flagged_and_held_out_rows_are_no_candidates(step: Step) -> None:
    keys, rows = select.choose(step, SelectConfig(percent="100"))
    assert rows.tolist() == [0, 1, 2, 5, 6, 7, 8, 9]
    assert len(keys.row) == 8


def test_the_lowest_of_each_cluster(step: Step) -> None:
    # candidates: cluster 0 rows 0 2 5 7 9, cluster 1 rows 1 6 8; the later, the lower its LP
    _, rows = select.choose(step, SelectConfig(percent="50"))
    assert len(rows) == 4
    assert set(rows.tolist()) >= {7, 9, 8}
    _, rows = select.choose(step, SelectConfig(rows=2, order="high"))
    assert rows.tolist() == [0, 1]


def test_a_token_budget_holds(step: Step) -> None:
    _, rows = select.choose(step, SelectConfig(tokens=13))  # a row has 4 tokens
    assert len(rows) == 3


def test_unknown_metric_and_too_many_rows(step: Step) -> None:
    with pytest.raises(ConfigError, match=r"no score column\nUse one of: .*lp_app_1"):
        select.choose(step, SelectConfig(rows=1, metric="flag"))
    with pytest.raises(ConfigError, match="only 8 rows"):
        select.choose(step, SelectConfig(rows=9))


def test_files_hold_the_rows_in_pool_order(step: Step, tmp_path: Path) -> None:
    rows = np.array([1, 6, 9])
    select.write(step, rows, tmp_path / "s.jsonl", "jsonl")
    ids = [full_id("01"), full_id("11"), full_id("14")]
    lines = (tmp_path / "s.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ids
    select.write(step, rows, tmp_path / "s.parquet", "parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    assert table["row"].to_pylist() == [1, 6, 9]
    assert table["id"].to_pylist() == ids
    assert table["raw"].to_pylist() == [f'{{"id": "{i}"}}' for i in ids]


def test_an_empty_selection_is_an_empty_file_with_all_columns(step: Step, tmp_path: Path) -> None:
    select.write(step, np.zeros(0, dtype=np.int64), tmp_path / "s.parquet", "parquet")
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.num_rows == 0
    assert table.schema.names[-1] == "raw"


def test_a_row_over_several_lines_becomes_one_line() -> None:
    raw = '{\n  "instruction": "a\\nb",\r\n  "output": "c"\n}'
    assert json.loads(select.one_line(raw)) == json.loads(raw)
    assert "\n" not in select.one_line(raw)
