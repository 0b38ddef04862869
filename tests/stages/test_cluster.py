"""The cluster stage, in a process of its own: which rows it clusters, and where they land."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import handmade
import numpy as np
import pyarrow as pa
import pytest

from engine import schema
from engine.config import Config
from engine.errors import ConfigError
from engine.rundir import RunDir
from engine.stages import cluster
from engine.step import CENTROIDS_FILE, CLUSTER, EMBED, POOL, Outcome, Step

LEFT, RIGHT = [0.0, 1.0], [8.0, 1.0]


def make(folder: Path, shards: list[list[list[float] | None]], **settings: int) -> Step:
    """A run with these embeddings, shard by shard; None for a flagged row."""
    config = Config.from_tree({"clusters": {"num": 2, **settings}})
    inputs = {POOL: "made-pool", EMBED: "made-embed"}
    step = Step("cluster", CLUSTER, 0, config, RunDir(folder), {}, inputs, "made-cluster")
    for index, rows in enumerate(shards):
        shard = f"part-{index:05d}.parquet"
        ids = [f"{index}-{row}" for row in range(len(rows))]
        made = pa.table(
            [pa.array(ids), pa.array(rows, pa.list_(pa.float32(), 2))], ["id", "embedding"]
        )
        handmade.commit(step, POOL, shard, made.select(["id"]))
        handmade.commit(step, EMBED, shard, made.cast(schema.embeddings(2)))
    return step


def run(step: Step) -> Outcome:
    context = multiprocessing.get_context("spawn")  # no torch in it
    with ProcessPoolExecutor(1, mp_context=context) as process:
        return process.submit(cluster.cluster_shards, step, 1, False).result()


@pytest.mark.parametrize(("two_level_from", "levels"), [(6, 2), (7, 1)])
def test_flagged_rows_are_left_out_and_the_others_land_on_theirs(
    tmp_path: Path, two_level_from: int, levels: int
) -> None:
    shards = [[None, LEFT, RIGHT], [None, None], [RIGHT, LEFT, None, LEFT, LEFT]]
    step = make(tmp_path, shards, two_level_from=two_level_from)
    outcome = run(step)
    assert outcome.details["clustered_rows"] == 6
    assert outcome.details["levels"] == levels
    assert outcome.rows_out == 10
    centroids = step.read(CLUSTER, CENTROIDS_FILE)
    place = centroids["centroid"].to_pylist()
    assert sorted(place) == [LEFT, RIGHT]
    assert sorted(zip(centroids["num_rows"].to_pylist(), place, strict=True)) == [
        (2, RIGHT),
        (4, LEFT),
    ]
    for shard, rows in zip(step.shards(), shards, strict=True):
        found = step.read(CLUSTER, shard)
        near = [None if c is None else place[c] for c in found["cluster"].to_pylist()]
        assert near == rows
        assert found["distance"].to_pylist() == [None if row is None else 0.0 for row in rows]


def test_how_rows_are_dealt_to_shards_changes_nothing(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32).tolist()
    one = make(tmp_path / "one", [rows], num=6, two_level_from=1)
    three = make(tmp_path / "three", [rows[:7], rows[7:30], rows[30:]], num=6, two_level_from=1)
    run(one)
    run(three)
    assert one.read(CLUSTER, CENTROIDS_FILE).equals(three.read(CLUSTER, CENTROIDS_FILE))
    distances = [
        [d for shard in step.shards() for d in step.read(CLUSTER, shard)["distance"].to_pylist()]
        for step in (one, three)
    ]
    assert distances[0] == distances[1]


def test_a_pool_of_flagged_rows_only_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="every row is flagged"):
        run(make(tmp_path, [[None, None], [None]]))
