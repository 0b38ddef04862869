"""Processes killed at seeded points: actors, drivers, nodes. The answer must be the same bytes."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from chaos_runs import (
    NUM_ROWS,
    ONE,
    PROXY,
    SECONDS,
    SHARD_ROWS,
    Chaos,
    at_work,
    committed,
    wait_for,
)
from ray._private.ray_constants import PROCESS_TYPE_RAYLET

import engine
from engine import heartbeat
from engine.checkpoints import FOLDER as CHECKPOINTS
from engine.rundir import LOCK
from engine.step import CLUSTER, EMBED, FINETUNE, PERPLEXITY, POOL, SCORE, TOKENS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
SEEDS = range(10)
NUM_SHARDS = NUM_ROWS // SHARD_ROWS
MAPPED = (
    ("embed", EMBED),
    ("tokens", f"{PROXY}/{TOKENS}"),
    ("perplexity", f"{PROXY}/{PERPLEXITY}/epoch-0"),
    ("perplexity", f"{PROXY}/{PERPLEXITY}/epoch-1"),
)
TRAINED = f"{PROXY}/{FINETUNE}/epoch-1"
SHARDED = (("pool", POOL), ("cluster", CLUSTER), ("score", f"{PROXY}/{SCORE}"), *MAPPED)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_actor_is_killed(chaos: Chaos, seed: int) -> None:
    draw = random.Random(seed)
    (stage, folder), shards = draw.choice(MAPPED), draw.randrange(NUM_SHARDS - 4)
    run_dir = chaos.done_before(folder, f"actor-{seed}")
    process = chaos.start(run_dir, "--until", stage)
    wait_for(lambda: len(list((run_dir / folder).glob("part-*"))) >= shards, process)
    pid = wait_for(lambda: at_work(run_dir / folder), process)
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    chaos.finish(process, run_dir)
    chaos.refuse_difference(run_dir, stage)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_driver_is_killed(chaos: Chaos, seed: int) -> None:
    """At some shard of some stage, its record included."""
    draw = random.Random(100 + seed)
    stage, folder = draw.choice(SHARDED)
    written = draw.randint(1, committed(chaos.whole, folder))
    run_dir = chaos.done_before(folder, f"driver-{seed}")
    process = chaos.start(run_dir, *ONE, "--until", stage)
    wait_for(lambda: committed(run_dir, folder) >= written, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    chaos.look(run_dir)
    chaos.finish(chaos.start(run_dir, *ONE, "--until", stage), run_dir)
    chaos.refuse_difference(run_dir, stage)


def test_an_orphan_goes_on_writing(chaos: Chaos) -> None:
    """A process that outlives its driver, and commits shards while the next run does the same.

    Ray ends workers whose driver died, so this one is no worker, but it writes as they do.
    """
    run_dir = chaos.done_before(EMBED, "orphan")
    process = chaos.start(run_dir)
    wait_for(lambda: committed(run_dir, EMBED) >= 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = chaos.start(run_dir)
    wait_for(lambda: at_work(run_dir / EMBED), again)
    assert committed(run_dir, EMBED) < NUM_SHARDS
    command = [sys.executable, "-c", WRITE_AGAIN, str(chaos.whole), str(run_dir), EMBED]
    orphan = subprocess.Popen(command)
    chaos.finish(again, run_dir)
    assert orphan.wait(timeout=60) == 0
    chaos.refuse_difference(run_dir)


WRITE_AGAIN = """
import sys, time
from pathlib import Path
from engine.rundir import RECORD, RunDir
whole, run, folder = RunDir(Path(sys.argv[1])), RunDir(Path(sys.argv[2])), sys.argv[3]
rounds = 0
while rounds < 3 or not (run.path / folder / RECORD).exists():
    for shard in reversed(whole.shards(folder)):
        run.commit(f"{folder}/{shard}", (whole.path / folder / shard).read_bytes())
        time.sleep(0.01)
    rounds += 1
"""


@pytest.fixture
def two_nodes() -> Iterator[Any]:
    """A cluster on this machine: a head that lends nothing, and two nodes of two cores."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 10**8},
    )
    yield cluster
    cluster.shutdown()


def add_nodes(cluster: Any, num_cpus: int) -> list[Any]:
    """Two nodes."""
    nodes = [cluster.add_node(num_cpus=num_cpus, object_store_memory=10**8) for _ in range(2)]
    cluster.wait_for_nodes()
    return nodes


def node_of(nodes: list[Any], pid: int) -> Any:
    """On which of them a worker runs; None where it has just ended."""
    for node in nodes:
        (raylet,) = node.all_processes[PROCESS_TYPE_RAYLET]
        if any(child.pid == pid for child in psutil.Process(raylet.process.pid).children()):
            return node
    return None


@pytest.mark.parametrize("seed", SEEDS)
def test_a_node_is_lost(chaos: Chaos, two_nodes: Any, seed: int) -> None:
    """One that is at work. The other has room for all: two cores, as the undisturbed run had."""
    draw = random.Random(200 + seed)
    stage, folder = draw.choice([*MAPPED, ("finetune", TRAINED)])
    shards, sign = draw.randrange(NUM_SHARDS - 4), f"*{heartbeat.WORK}"
    nodes = add_nodes(two_nodes, num_cpus=2)
    run_dir = chaos.done_before(folder, f"node-{seed}")
    process = chaos.start(run_dir, "--until", stage, address=two_nodes.address)
    if stage == "finetune":
        shards, sign = 0, f"rank-*{heartbeat.SIGN}"
        wait_for(lambda: list((run_dir / folder / CHECKPOINTS).glob("*/step-*")), process)
    wait_for(lambda: len(list((run_dir / folder).glob("part-*"))) >= shards, process)
    victim = wait_for(lambda: node_of(nodes, at_work(run_dir / folder, sign)), process)
    two_nodes.remove_node(victim, allow_graceful=False)
    chaos.finish(process, run_dir)
    chaos.refuse_difference(run_dir, stage)


def test_a_node_is_lost_and_the_rest_is_too_small(chaos: Chaos, two_nodes: Any) -> None:
    """No hang: an error that says what is missing. With fewer workers the run then goes on."""
    _, victim = add_nodes(two_nodes, num_cpus=1)
    run_dir = chaos.done_before(EMBED, "node-small")
    few = ("--set", "resources.stall_seconds=20")
    process = chaos.start(run_dir, *few, address=two_nodes.address)
    wait_for(lambda: committed(run_dir, EMBED) >= 3, process)
    two_nodes.remove_node(victim, allow_graceful=False)
    assert process.wait(timeout=180) == 1
    told = run_dir.with_suffix(".log").read_text()
    assert "no sign of life for 20 s" in told
    assert "the stage waits for 2 × 1 CPU" in told
    process = chaos.start(
        run_dir,
        "--set",
        "resources.num_workers=1",
        "--until",
        "tokens",
        address=two_nodes.address,
    )
    chaos.finish(process, run_dir)


def test_a_kill_at_half_costs_a_tenth_at_most(chaos: Chaos) -> None:
    """Of 40 shards of embeddings only those are computed twice that were begun and not written."""
    run_dir = chaos.done_before(EMBED, "half")
    process = chaos.start(run_dir, "--until", "embed")
    wait_for(lambda: len(list((run_dir / EMBED).glob("part-*"))) >= NUM_SHARDS // 2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in (run_dir / EMBED).glob("part-*")}
    begun = {path.stem for path in (run_dir / EMBED / heartbeat.FOLDER).glob("part-*")}
    twice = begun - {path.name for path in before}
    assert len(twice) <= NUM_SHARDS // 10
    chaos.finish(chaos.start(run_dir, "--until", "embed"), run_dir)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert len(list((run_dir / EMBED).glob("part-*"))) == NUM_SHARDS


def test_more_workers_than_the_cluster_ever_has(chaos: Chaos, two_nodes: Any) -> None:
    """Ray would wait for ever that somebody adds nodes."""
    add_nodes(two_nodes, num_cpus=1)
    run_dir = chaos.done_before(TRAINED, "too-many")
    many = ("--set", "resources.train_workers=3", "--set", "resources.stall_seconds=20")
    process = chaos.start(run_dir, *many, address=two_nodes.address)
    assert process.wait(timeout=SECONDS) == 1
    told = run_dir.with_suffix(".log").read_text()
    assert "finetune epoch 1 hangs: no sign of life for 20 s" in told
    assert "the stage waits for 3 × 1 CPU" in told


def test_a_second_run_does_nothing(chaos: Chaos) -> None:
    def state() -> dict[Path, tuple[int, str]]:
        return {
            path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in chaos.whole.rglob("*")
            if path.is_file() and not path.name.startswith(LOCK)
        }

    before, log = state(), chaos.whole.with_suffix(".log")
    told = len(log.read_text())
    chaos.finish(chaos.start(chaos.whole), chaos.whole)
    assert state() == before
    assert log.read_text()[told:].count("done before") == len(engine.open_run(chaos.whole).steps)
