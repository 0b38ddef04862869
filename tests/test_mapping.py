"""The actor pool on real Ray: receipts, resume, and a shard that kills its actor."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import ray
import ray.cloudpickle
from handmade import commit_run, make_step

from engine.config import ResourcesConfig
from engine.errors import ConfigError, WorkerError
from engine.mapping import Made, map_shards
from engine.nodes import Nodes
from engine.step import Step

pytestmark = pytest.mark.usefixtures("ray_session")
# Workers cannot import the tests, so the class below travels whole.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
NODES = Nodes(num_cpus=2, num_gpus=0, resources=ResourcesConfig(cpus_per_worker=1))


class CountingWorker:
    """Counts rows; notes in a file that it did a shard; dies on a chosen one."""

    def __init__(self, notes: str, deadly: str | None = None) -> None:
        self.notes, self.deadly = Path(notes), deadly

    def read(self, step: Step, shard: str) -> str:
        return shard

    def __call__(self, step: Step, shard: str) -> Made:
        with self.notes.open("a") as file:
            file.write(f"{shard}\n")
        if shard == self.deadly:
            os._exit(1)
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


def test_a_shard_that_kills_its_actor_ends_the_run_with_its_name(
    step: Step, tmp_path: Path
) -> None:
    """Three tries, then an error for people; nothing is marked done."""
    notes = tmp_path / "notes"
    with pytest.raises(WorkerError, match=r"failed on a worker: Actor(.|\n)*error\.log"):
        map_shards(
            step, NODES, CountingWorker, {"notes": str(notes), "deadly": "part-00001.parquet"}
        )
    assert notes.read_text().split().count("part-00001.parquet") == 3
    assert "part-00001.parquet" in step.missing()
    assert all_cores_come_back()


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

    def read(self, step: Step, shard: str) -> str:
        return shard

    def __call__(self, step: Step, shard: str) -> Made:
        raise ConfigError("no such thing; use another")


@pytest.mark.parametrize("where", ["init", "call"])
def test_a_workers_own_error_reaches_the_person_as_it_is(step: Step, where: str) -> None:
    with pytest.raises(WorkerError) as caught:
        map_shards(step, NODES, RefusingWorker, {"where": where})
    assert str(caught.value) == "no such thing; use another"
    assert all_cores_come_back()
