"""``poolscore plan``: what a run will take, from a short measured probe. Writes nothing.

A sample of the pool's lines goes through the stages' own workers on this machine (`probe`); what
they took is scaled to the pool (`stages`, plain arithmetic) and laid out for people (`table`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine import models, nodes, pipeline, probe, sampling
from engine.config import Config
from engine.errors import PoolscoreError, WorkerError
from engine.failures import original
from engine.maths.kmeans import num_clusters, num_flops
from engine.nodes import Nodes
from engine.probe import Rows, Speed
from engine.progress import duration
from engine.rundir import RunDir
from engine.step import Step, is_whole

SAMPLE_LINES = 2048
SEED = 42
BUDGET_GAIN = 1.05
"""A token budget is suggested when it is faster than the run's by more than this."""

MAP_SECONDS, TRAIN_SECONDS = 1.5, 6.0
"""Rough seconds of a stage beside its workers' start and work: Ray Data's set-up; Ray Train's
controller, the process group, DeepSpeed's set-up, saving the weights and loading them once more."""
SECONDS_PER_ROW = {"score": 1e-5, "select": 1e-5, "report": 1.5e-5}
"""Arithmetic on files; 0.1 to 0.2 s on 14,989 rows (benchmarks/README.md)."""
BYTES_PER_ROW = {"cluster": 50, "perplexity": 60, "score": 130}
ID_BYTES = 40
REPORT_BYTES = 250_000
WEIGHT_BYTES, STATE_BYTES = 4, 14
"""For each weight: float32; and where another epoch follows DeepSpeed's state (the weight in
bfloat16 or none, its master copy, two moments)."""
MEMORY_PER_ROW = {"pool": 150, "score": 400, "select": 700, "report": 300}
"""Bytes that the driver holds for each row of the pool beside what it holds anyway."""
_SHARDED = ("pool", "embed", "cluster", "tokens", "perplexity", "score")


@dataclass(frozen=True)
class Measured:
    """The sample, and what the probe found. A stage that was not asked for has no speed."""

    num_lines: int
    """Lines of the pool."""
    num_sampled: int
    rows: Rows
    speeds: Mapping[str, Speed] = field(default_factory=dict)
    """By stage; of ``cluster`` the seconds of one FLOP."""
    starts: Mapping[str, float] = field(default_factory=dict)
    """Seconds until a worker of the stage is ready."""

    @property
    def factor(self) -> float:
        """The pool over the sample."""
        return self.num_lines / self.num_sampled


@dataclass(frozen=True)
class StageEstimate:
    """What one stage will take."""

    label: str
    rows: int = 0
    tokens: int = 0
    shards: int = 0
    flops: float = 0.0
    disk_bytes: float = 0.0
    seconds: float = 0.0
    memory_bytes: float = 0.0
    done: bool = False
    """Finished by an earlier run; takes nothing."""


@dataclass(frozen=True)
class Estimate:
    """A run before it is run."""

    config: Config
    """Resolved settings."""
    nodes: Nodes
    measured: Measured
    stages: list[StageEstimate]
    start_seconds: float
    """For joining or starting Ray."""
    probe_seconds: float

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.start_seconds + sum(stage.seconds for stage in self.stages)


# ── measuring ────────────────────────────────────────────────────────────────────────────────────


def estimate(
    config: Config, run_dir: str | Path | None = None, until: str | None = None
) -> Estimate:
    """Probe the pool, the models and the machine.

    Args:
        config: settings as for `pipeline.run`.
        run_dir: where the run would be; stages finished there take nothing. Only read.
        until: the last stage of interest.

    Raises:
        ConfigError, PoolError, ModelError: something named in the settings cannot be used.
        WorkerError: a measurement failed.
    """
    pipeline.check_names(until)
    began = time.perf_counter()
    sample = sampling.draw(config.pool.paths, SAMPLE_LINES, SEED)
    run = RunDir(pipeline.local_path(run_dir)) if run_dir is not None else None
    sampled = time.perf_counter()
    with nodes.session(config.resources, models.largest_bytes(config)) as cluster:
        start_seconds = time.perf_counter() - sampled
        resolved = pipeline.settle(config, cluster.device, run)
        steps = _steps(resolved, run, until)
        todo = {step.stage for step, done in steps if not done}
        pipeline.check(resolved, todo, cluster)
        measured = _measure(resolved, cluster, sample, todo)
    return Estimate(
        config=resolved,
        nodes=cluster,
        measured=measured,
        stages=stages(resolved, cluster, measured, steps),
        start_seconds=start_seconds,
        probe_seconds=time.perf_counter() - began,
    )


def _steps(config: Config, run: RunDir | None, until: str | None) -> list[tuple[Step, bool]]:
    """The stages up to `until`, and whether each is finished, as its own record has it."""
    planned = pipeline.layout(config)
    last = max((i for i, entry in enumerate(planned, 1) if until == entry[0].NAME), default=None)
    steps: list[tuple[Step, bool]] = []
    for stage, folder, epoch, _ in planned[:last]:
        record = run.record(folder) if run else None
        mark = record.fingerprint if record else ""
        step = Step(stage.NAME, folder, epoch, config, run or RunDir(Path()), {}, {}, mark)
        steps.append((step, record is not None and is_whole(step, record)))
    return steps


def _measure(config: Config, cluster: Nodes, sample: sampling.Sample, todo: set[str]) -> Measured:
    """One task for each stage that computes, one after another."""
    speeds: dict[str, Speed] = {}
    starts: dict[str, float] = {}
    rows, starts["tokens"] = _task(
        {"num_cpus": 1}, probe.measure_rows, config, cluster, sample.lines
    )
    measured = Measured(sample.num_lines, len(sample.lines), rows)
    actors = cluster.for_shards(_num_shards(config, measured))
    room = {"num_cpus": actors.cpus_per_worker, "num_gpus": actors.gpus_per_worker}
    if rows.texts and todo & {"embed", "cluster"}:
        speeds["embed"], starts["embed"] = _task(
            room, probe.measure_embedding, config, actors, rows.texts
        )
    if rows.texts and "cluster" in todo:
        dimension = speeds["embed"].details["dimension"]
        num_rows, k = _kmeans_size(config, measured)
        gpu = bool(cluster.gpus_per_worker)
        threads = cluster.cpus_per_worker if gpu else cluster.num_cpus_one_node
        own = {"runtime_env": {"env_vars": {"POOLSCORE_PROCESS": "faiss"}}}
        speeds["cluster"], starts["cluster"] = _task(
            {**room, "num_cpus": threads, **own},
            probe.measure_kmeans,
            num_rows,
            dimension,
            k,
            threads,
            gpu,
        )
    if len(rows.input_ids) and "perplexity" in todo:
        budget = config.resources.score_batch_tokens
        assert budget is not None, "resolved before a probe"
        speeds["perplexity"], starts["perplexity"] = _task(
            room,
            probe.measure_scoring,
            config,
            actors,
            rows.input_ids,
            rows.scored,
            [budget, max(1, budget // 2), 2 * budget],
        )
    training = np.flatnonzero(rows.is_train)
    if len(training) and "finetune" in todo:
        speeds["finetune"], starts["finetune"] = _task(
            {**room, "num_cpus": cluster.cpus_per_train_worker},
            probe.measure_training,
            config,
            cluster,
            rows.input_ids.take(training),
            rows.scored.take(training),
        )
    return Measured(measured.num_lines, measured.num_sampled, rows, speeds, starts)


def _task(options: dict[str, Any], work: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Run a measurement in a process of its own: its result, and the seconds until it was ready."""
    import ray
    from ray.exceptions import RayError

    began = time.perf_counter()
    task = ray.remote(max_calls=1, max_retries=0, **options)(work)
    try:
        result = ray.get(task.remote(*arguments))
    except RayError as error:
        first = original(error)
        if isinstance(first, PoolscoreError):
            raise first from None
        last = [line for line in str(first).splitlines() if line.strip()][-6:]
        raise WorkerError(
            f"{work.__name__} failed on a worker: {type(first).__name__}\n"
            + "\n".join(f"  {line}" for line in last)
            + "\nA worker that died without a word was most often out of memory: lower "
            "resources.score_batch_tokens or choose a smaller proxy."
        ) from None
    return result, max(0.0, time.perf_counter() - began - result.busy_seconds)


# ── arithmetic ───────────────────────────────────────────────────────────────────────────────────


def stages(
    config: Config, cluster: Nodes, measured: Measured, steps: list[tuple[Step, bool]]
) -> list[StageEstimate]:
    """What every stage will take, from what the sample took. Nothing is measured here.

    Args:
        config: resolved settings.
        cluster: decides how many workers share the work.
        measured: the probe's findings.
        steps: the stages in order, and whether each is finished.
    """
    return [
        StageEstimate(step.label, done=True) if done else _stage(step, config, cluster, measured)
        for step, done in steps
    ]


def _stage(step: Step, config: Config, cluster: Nodes, measured: Measured) -> StageEstimate:
    name, sample, scale = step.stage, measured.rows, measured.factor
    num_rows = round(sample.num_rows * scale)
    num_shards = _num_shards(config, measured)
    share = _share(cluster.for_shards(num_shards), num_shards)
    speed = measured.speeds.get(name)
    start = measured.starts.get(name, 0.0)
    memory = sample.pool_memory_bytes + MEMORY_PER_ROW.get(name, 0) * num_rows
    tokens, flops, rows = 0, 0.0, num_rows
    disk = BYTES_PER_ROW.get(name, 0.0) * num_rows
    seconds = SECONDS_PER_ROW.get(name, 0.0) * num_rows
    if name == "pool":
        seconds, disk = sample.pool_seconds * scale, sample.pool_bytes * scale
    elif name == "tokens":
        spread = _share(cluster.one_core_each(), num_shards)
        seconds = start + MAP_SECONDS + sample.token_seconds * scale * spread
        tokens, disk = round(sample.input_ids.lengths.sum() * scale), sample.token_bytes * scale
        memory = sample.memory_bytes
    elif name == "embed" and speed:
        seconds = start + MAP_SECONDS + speed.seconds * scale * share
        tokens, flops, memory = round(speed.tokens * scale), speed.flops * scale, speed.memory_bytes
        disk = scale * sample.num_embedded * 4 * speed.details["dimension"] + ID_BYTES * num_rows
    elif name == "cluster" and speed:
        clustered, k = _kmeans_size(config, measured)
        dimension = measured.speeds["embed"].details["dimension"]
        two_level = clustered >= config.clusters.two_level_from
        iterations = config.clusters.num_iterations
        flops = num_flops(clustered, dimension, k, iterations, two_level)
        seconds = start + speed.seconds * flops
        memory = speed.memory_bytes + 2 * 4 * dimension * clustered
        disk += 4 * dimension * k
    elif name == "perplexity" and speed:
        seconds = start + MAP_SECONDS + speed.seconds * scale * share
        tokens, flops, memory = round(speed.tokens * scale), speed.flops * scale, speed.memory_bytes
    elif name == "finetune" and speed:
        rows = round(int(sample.is_train.sum()) * scale)
        tokens, flops = round(speed.tokens * scale), speed.flops * scale
        seconds = start + TRAIN_SECONDS + speed.seconds * scale / cluster.train_workers
        # Every training worker holds all rows; the sample's are in the measured memory.
        memory = speed.memory_bytes + 8.0 * (tokens - speed.tokens)
        follows = step.epoch < config.finetune.num_epochs
        disk = speed.details["weights"] * (WEIGHT_BYTES + STATE_BYTES * follows)
    elif name == "select":
        rows = _num_selected(config, measured)
        disk = 1.5 * rows * sample.raw_bytes / max(1, sample.num_rows)
    elif name == "report":
        disk = REPORT_BYTES
    shards = num_shards if name in _SHARDED else 0
    return StageEstimate(step.label, rows, tokens, shards, flops, disk, seconds, memory)


def _num_shards(config: Config, measured: Measured) -> int:
    rows = measured.rows.num_rows * measured.factor / config.pool.shard_rows
    size = measured.rows.raw_bytes * measured.factor / config.pool.shard_bytes
    return max(1, math.ceil(max(rows, size)))


def _share(cluster: Nodes, num_shards: int) -> float:
    """Part of the work that the busiest worker does: shards are not divided."""
    return math.ceil(num_shards / cluster.num_workers(num_shards)) / num_shards


def _kmeans_size(config: Config, measured: Measured) -> tuple[int, int]:
    """Rows to cluster, and clusters."""
    rows = max(1, round(measured.rows.num_embedded * measured.factor))
    return rows, num_clusters(rows, config.clusters.rows_per_cluster, config.clusters.num)


def _num_selected(config: Config, measured: Measured) -> int:
    """Rows that select will take."""
    sample, select = measured.rows, config.select
    candidates = int(sample.is_train.sum()) * measured.factor
    if select.rows is not None:
        return min(select.rows, round(candidates))
    if select.tokens is not None:
        return min(
            round(select.tokens / max(1.0, sample.input_ids.lengths.mean())), round(candidates)
        )
    return round(candidates * float(select.percent or 0) / 100)


# ── for people ───────────────────────────────────────────────────────────────────────────────────

_HEAD = (
    f"{'stage':<20} {'rows':>12} {'tokens':>15} {'shards':>7} {'TFLOP':>10} {'disk':>9} "
    f"{'time':>13} {'memory':>9}"
)


def table(found: Estimate) -> str:
    """One line per stage, their sum, and what it rests on."""
    price = found.config.resources.price_per_node_hour
    start = StageEstimate("(start of Ray)", seconds=found.start_seconds)
    lines = [
        _HEAD + (f" {'cost':>9}" if price is not None else ""),
        *(_line(stage, _cost(found, stage.seconds)) for stage in (start, *found.stages)),
    ]
    total = StageEstimate(
        "total",
        flops=sum(stage.flops for stage in found.stages),
        disk_bytes=sum(stage.disk_bytes for stage in found.stages),
        seconds=found.seconds,
        memory_bytes=max((stage.memory_bytes for stage in found.stages), default=0),
    )
    lines += ["", _line(total, _cost(found, found.seconds)), ""]
    return "\n".join([*lines, *_basis(found), *_hints(found)])


def _line(stage: StageEstimate, cost: str) -> str:
    if stage.done:
        return f"{stage.label:<20} done before"
    counts = (
        f"{_count(stage.rows):>12} {_count(stage.tokens):>15} {_count(stage.shards):>7} "
        f"{_tera(stage.flops):>10} {_size(stage.disk_bytes):>9}"
    )
    time_ = f"{duration(stage.seconds):>13} {_size(stage.memory_bytes):>9}"
    return f"{stage.label:<20} {counts} {time_}{cost}".rstrip()


def _cost(found: Estimate, seconds: float) -> str:
    price = found.config.resources.price_per_node_hour
    return "" if price is None else f" {seconds / 3600 * found.nodes.num_nodes * price:>9,.2f}"


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _tera(flops: float) -> str:
    return f"{flops / 1e12:,.2f}" if flops else ""


def _size(size: float) -> str:
    if not size:
        return ""
    for unit, exponent in (("TB", 4), ("GB", 3), ("MB", 2)):
        if size >= 1024**exponent:
            return f"{size / 1024**exponent:,.1f} {unit}"
    return f"{size / 1024:,.1f} KB"


def _basis(found: Estimate) -> list[str]:
    """What the figures rest on."""
    measured, cluster, config = found.measured, found.nodes, found.config
    whole = measured.num_sampled == measured.num_lines
    counted = (
        f"counts are exact: all {measured.num_lines:,} lines were read"
        if whole
        else f"counts are estimated from {measured.num_sampled:,} of {measured.num_lines:,} lines; "
        "duplicates are not known before the run"
    )
    lines = [
        f"{counted[0].upper()}{counted[1:]}.",
        f"Times were measured in {duration(found.probe_seconds)} on {cluster.in_words()}; proxy "
        f"{config.proxy_name} in {config.proxy.dtype}.",
    ]
    gpu = max((speed.gpu_bytes for speed in measured.speeds.values()), default=0)
    if gpu:
        lines.append(f"Largest GPU memory in the probe: {_size(gpu)}.")
    if cluster.train_workers > 1:
        lines.append("What training workers send to one another is not in the times.")
    if config.resources.price_per_node_hour is None:
        lines.append("For costs: --set resources.price_per_node_hour=1.20 (your own price).")
    return lines


def _hints(found: Estimate) -> list[str]:
    """What would be faster."""
    scoring = found.measured.speeds.get("perplexity")
    if scoring is None:
        return []
    seconds: dict[int, float] = scoring.details["budgets"]
    now = found.config.resources.score_batch_tokens
    best = min(seconds, key=seconds.__getitem__)
    if now is None or now not in seconds or seconds[now] < seconds[best] * BUDGET_GAIN:
        return []
    return [
        f"Scoring is {seconds[now] / seconds[best]:.2f} times as fast with "
        f"--set resources.score_batch_tokens={best}"
    ]
