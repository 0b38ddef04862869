"""A run directory whose first stage is done, for benchmarks that call a stage's worker."""

from __future__ import annotations

from pathlib import Path

from benchmarks import harness
from engine import pipeline
from engine.config import Config
from engine.nodes import Nodes
from engine.resolve import resolve
from engine.rundir import RunDir
from engine.stages import pool
from engine.step import Step


def with_pool(folder: Path, shard_rows: int, num_rows: int = 0) -> dict[str, Step]:
    """Write the benchmark's pool under `folder` in shards; returns each stage's first step.

    Args:
        folder: an empty one.
        shard_rows: rows per shard.
        num_rows: how many of the pool's first lines; 0 for all.
    """
    paths = [str(harness.first_lines(folder, num_rows))]
    config = Config.from_tree({"pool": {"paths": paths, "shard_rows": shard_rows}})
    config = resolve(config, "cpu")
    steps = {step.stage: step for step in reversed(pipeline.plan(config, RunDir(folder / "run")))}
    pool.run(steps["pool"], Nodes(num_cpus=1, num_gpus=0, resources=config.resources))
    return steps
