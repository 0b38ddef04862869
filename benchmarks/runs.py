"""A run directory whose first stage is done, for benchmarks that call a stage's worker."""

from __future__ import annotations

from pathlib import Path

from benchmarks import harness
from engine import pipeline
from engine.config import Config
from engine.nodes import Nodes
from engine.record import Record
from engine.resolve import resolve
from engine.rundir import RunDir, make_root
from engine.stages import pool
from engine.step import Outcome, Step


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
    nodes = Nodes(num_cpus=1, num_gpus=0, resources=config.resources)
    make_root(steps["pool"].run.path)
    mark_whole(steps["pool"], pool.run(steps["pool"], nodes))
    return steps


def mark_whole(step: Step, outcome: Outcome | None = None) -> None:
    """Write the record by which others know what a stage has written, its numbers aside."""
    record = Record(
        stage=step.stage,
        fingerprint=step.fingerprint,
        settings={},
        inputs={},
        rows_in=outcome.rows_in if outcome else 0,
        rows_out=outcome.rows_out if outcome else 0,
        flags={},
        seconds=0.0,
        peak_memory_bytes=0,
        workers=1,
        files=step.entries(),
        details={},
        versions={},
        commit=None,
        finished="",
    )
    step.run.commit_record(step.folder, record)
