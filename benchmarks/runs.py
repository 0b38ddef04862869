"""A run directory whose first stage is done, for benchmarks that call a stage's worker."""

from __future__ import annotations

from pathlib import Path

from benchmarks import harness
from engine import pipeline
from engine.config import Config
from engine.nodes import Nodes
from engine.rundir import RunDir
from engine.stages import pool
from engine.step import Step


def with_pool(folder: Path, stage: str, shard_rows: int) -> Step:
    """Write the benchmark's pool under `folder` in shards; returns the step of a later stage."""
    tree = {"pool": {"paths": [str(harness.pool_path())], "shard_rows": shard_rows}}
    config = pipeline.resolve(Config.from_tree(tree), "cpu")
    steps = {step.stage: step for step in pipeline.plan(config, RunDir(folder))}
    pool.run(steps["pool"], Nodes(num_cpus=1, num_gpus=0, resources=config.resources))
    return steps[stage]
