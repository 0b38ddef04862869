"""The actor pool on real Ray: receipts, resume, rows that break workers, and workers that hang."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import ray
import ray.cloudpickle
from handmade import commit_run, full_id, make_step

from engine import heartbeat
from engine.actor import Made
from engine.config import ResourcesConfig
from engine.errors import ConfigError, WorkerError
from engine.mapping import map_shards
from engine.nodes import Nodes
from engine.stall import guarded
from engine.step import Step

pytestmark = pytest.mark.usefixtures("ray_session")
# Workers cannot import the tests, so the class below travels whole.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
NODES = Nodes(num_cpus=2, num_gpus=0, resources=ResourcesConfig(cpus_per_worker=1))


class CountingWorker:
    """Counts rows; notes in a file that it did a shard."""

    def __init__(self, notes: str, deadly: str | None = None) -> None:
        self.notes, self.deadly = Path(notes), deadly

    def read(self, step: Step, shard: str, skip: npt.NDArray[np.bool_]) -> str:
        return shard

    def __call__(self, step: Step, shard: str) -> Made:
        with self.notes.open("a") as file:
            file.write(f"{shard}\n")
        rows = step.read("1-pool", shard, ["id", "flag"])
        return Made(pa.table({"id": rows["id"]}), flags={"ok": len(rows)}, counts={"tokens": 7})


@pytest.fixture
def step(tmp_path: Path) -> Step:
    made = make_step(tmp_path / "run", "tokens", "4-tokens")
    for number in range(4):
        commit_run(
            made,
            f"part-0000{number}.parquet",
            2 * number,
            ids=[f"{number}a", f"{number}b"],
            clusters=[0, 0],
            sums=[[1.0, 1.0], [1.0, 1.0]],
            counts=[1, 1],
            flags=["ok", "ok"],
        )
    return replace(made, folder="mapped", fingerprint="made-mapped")


def test_every_shard_once_and_counts_added_up(step: Step, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    outcome = map_shards(step, NODES, CountingWorker, {"notes": str(notes)})
    assert sorted(notes.read_text().split()) == step.shards()
    assert (outcome.rows_in, outcome.rows_out, outcome.tokens) == (8, 8, 28)
    assert outcome.flags == {"ok": 8}
    assert outcome.workers == 2
    assert outcome.peak_memory_bytes > 10 * 2**20
    assert step.missing() == []


def test_a_resumed_run_does_what_is_missing_and_counts_everything(
    step: Step, tmp_path: Path
) -> None:
    notes = tmp_path / "notes"
    map_shards(step, NODES, CountingWorker, {"notes": str(notes)})
    (step.run.path / "mapped" / "part-00002.parquet").unlink()
    notes.unlink()
    outcome = map_shards(step, NODES, CountingWorker, {"notes": str(notes)})
    assert notes.read_text().split() == ["part-00002.parquet"]
    assert (outcome.rows_out, outcome.tokens) == (8, 28)


class FragileWorker:
    """Breaks on some rows, on each in one of the ways in which rows break workers."""

    def __init__(self, ways: dict[str, str], notes: str) -> None:
        self.ways, self.notes = ways, Path(notes)

    def read(self, step: Step, shard: str, skip: npt.NDArray[np.bool_]) -> pa.Array:
        ids = step.read("1-pool", shard, ["id"])["id"].combine_chunks()
        return pa.array([None if out else i for i, out in zip(ids.to_pylist(), skip, strict=True)])

    def __call__(self, step: Step, ids: pa.Array) -> Made:
        for row in ids.to_pylist():
            if row in self.ways:
                with self.notes.open("a") as file:
                    file.write(f"{self.ways[row]}\n")
                break_down(self.ways[row])
        return Made(pa.table({"id": ids}), flags={"lost": ids.null_count})


def break_down(way: str) -> None:
    if way == "raise":
        raise ValueError("the row's own text")
    if way == "exit":
        sys.exit(3)
    if way == "crash":
        ctypes.string_at(0)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.timeout(60)  # the promise: a bad row is found within a minute
def test_a_row_that_breaks_its_worker_costs_one_row(step: Step, tmp_path: Path) -> None:
    """Tried with its shard and alone: alone once where it raises, twice where it kills."""
    notes = tmp_path / "notes"
    ways = ["raise", "exit", "crash", "kill"]
    bad = {full_id(f"{number}b"): way for number, way in enumerate(ways)}
    outcome = map_shards(step, NODES, FragileWorker, {"ways": bad, "notes": str(notes)})
    found = [step.read("mapped", shard)["id"].to_pylist() for shard in step.shards()]
    assert found == [[full_id(f"{number}a"), None] for number in range(4)]
    assert Counter(notes.read_text().split()) == {"raise": 2, "exit": 2, "crash": 3, "kill": 3}
    assert outcome.flags == {"lost": 4}
    reasons = outcome.details["failed_rows"]
    assert sum(reasons.values()) == 4
    assert "own text" not in str(reasons)  # rows are nobody's business but the pool's
    assert not (step.run.path / "mapped" / heartbeat.FOLDER).exists()


class HopelessWorker(FragileWorker):
    """Breaks on every row."""

    def __call__(self, step: Step, ids: pa.Array) -> Made:
        if ids.null_count < len(ids):
            raise ValueError("no luck")
        return Made(pa.table({"id": ids}))


def test_a_worker_that_fails_on_everything_stops_the_run(step: Step, tmp_path: Path) -> None:
    rows = [f"{n}" for n in range(8)]
    commit_run(
        step,
        "part-00000.parquet",
        0,
        ids=rows,
        clusters=[0] * 8,
        sums=[[1.0] * 8, [1.0] * 8],
        counts=[1] * 8,
        flags=["ok"] * 8,
    )
    settings = {"ways": {}, "notes": ""}
    with pytest.raises(
        WorkerError, match=r"part-00000(.|\n)*4 of its 8 rows fail(.|\n)*ValueError"
    ):
        map_shards(step, NODES, HopelessWorker, settings)
    assert all_cores_come_back()


class StuckWorker(CountingWorker):
    """Never gets through one of the shards."""

    def __call__(self, step: Step, shard: str) -> Made:
        if shard == self.deadly:
            time.sleep(3600)
        return super().__call__(step, shard)


def test_a_worker_that_hangs_ends_the_run_and_is_named(step: Step, tmp_path: Path) -> None:
    step = replace(step, config=step.config.override(resources={"stall_seconds": 12}))
    settings = {"notes": str(tmp_path / "notes"), "deadly": "part-00002.parquet"}
    with pytest.raises(WorkerError) as caught, guarded(step):
        map_shards(step, NODES, StuckWorker, settings)
    told = str(caught.value)
    assert "no sign of life for 12 s" in told
    assert "where: part-00002.parquet, process" in told
    assert "in __call__" in told  # the line of code it hangs at
    assert "resources.stall_seconds" in told
    assert all_cores_come_back()


def test_resources_that_cannot_be_had_end_the_run(step: Step, tmp_path: Path) -> None:
    step = replace(step, config=step.config.override(resources={"stall_seconds": 3}))
    greedy = Nodes(
        num_cpus=1000, num_gpus=0, resources=ResourcesConfig(num_workers=1, cpus_per_worker=1000)
    )
    with pytest.raises(WorkerError, match="the stage waits for 1 × 1000 CPU"), guarded(step):
        map_shards(step, greedy, CountingWorker, {"notes": str(tmp_path / "notes")})
    assert all_cores_come_back()


class SlowWorker(CountingWorker):
    """Takes longer than the limit for one shard, batch by batch."""

    def __call__(self, step: Step, shard: str) -> Made:
        for _ in range(6 if shard.endswith("0.parquet") else 0):
            time.sleep(2)
            heartbeat.beat()
        return super().__call__(step, shard)


def test_a_slow_but_honest_shard_is_left_alone(step: Step, tmp_path: Path) -> None:
    step = replace(step, config=step.config.override(resources={"stall_seconds": 10}))
    with guarded(step):
        outcome = map_shards(step, NODES, SlowWorker, {"notes": str(tmp_path / "notes")})
    assert outcome.rows_out == 8


def all_cores_come_back(seconds: float = 30) -> bool:
    """Whether no actor keeps a core: the next stage may ask for all of them."""
    deadline = time.monotonic() + seconds
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


class RefusingWorker:
    """Fails with an error for people, while it loads or on a shard."""

    def __init__(self, where: str) -> None:
        self.where = where
        if where == "init":
            raise ConfigError("no such thing; use another")

    def read(self, step: Step, shard: str, skip: npt.NDArray[np.bool_]) -> str:
        return shard

    def __call__(self, step: Step, shard: str) -> Made:
        raise ConfigError("no such thing; use another")


@pytest.mark.parametrize("where", ["init", "call"])
def test_a_workers_own_error_reaches_the_person_as_it_is(step: Step, where: str) -> None:
    with pytest.raises(WorkerError) as caught:
        map_shards(step, NODES, RefusingWorker, {"where": where})
    assert str(caught.value) == "no such thing; use another"
    assert all_cores_come_back()
