"""``poolscore plan``: what a run will take, from a short measured probe. Writes nothing.

A sample of the pool's lines goes through the stages' own workers on this machine (`probe`); what
they took is scaled to the pool (`forecast`) and laid out for people (`plan_table`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine import nodes, pipeline, probe, readers, sampling
from engine.config import Config
from engine.failures import for_a_person
from engine.forecast import Forecast, Measured, StageEstimate, stages
from engine.nodes import Nodes
from engine.plan_progress import Told
from engine.probe import Speed
from engine.resolve import settle
from engine.rundir import RunDir
from engine.step import Step, is_whole

SAMPLE_LINES = 2048
SEED = 42
TICK_SECONDS = 1.0


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
    remarks: list[str] = field(default_factory=list)
    """What the names of the pool's files say."""

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        return self.start_seconds + sum(stage.seconds for stage in self.stages)

    def cost(self, seconds: float) -> float | None:
        """Of so much time on all nodes; None where no price is set."""
        price = self.config.resources.price_per_node_hour
        return None if price is None else seconds / 3600 * self.nodes.num_nodes * price


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
    told = Told()
    sample = _draw(config, told)
    run = RunDir(pipeline.local_path(run_dir)) if run_dir is not None else None
    sampled = time.perf_counter()
    with nodes.session(config.resources) as cluster:
        start_seconds = time.perf_counter() - sampled
        resolved = settle(config, cluster.device, run)
        steps = _steps(resolved, run, until)
        todo = {step.stage for step, done in steps if not done}
        pipeline.check(resolved, todo, cluster)
        measured = _measure(resolved, cluster, sample, todo, told)
    return Estimate(
        config=resolved,
        nodes=cluster,
        measured=measured,
        stages=stages(Forecast(resolved, cluster, measured), steps),
        start_seconds=start_seconds,
        probe_seconds=time.perf_counter() - began,
        remarks=readers.remarks(readers.find_files(config.pool.paths)),
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


def _draw(config: Config, told: Told) -> sampling.Sample:
    """Count the pool's lines, and draw some."""
    pool = config.pool
    size = sum(file.path.stat().st_size for file in readers.find_files(pool.paths))
    with told.counting(size) as advance:
        return sampling.draw(pool.paths, SAMPLE_LINES, SEED, pool.keep_broken_files, advance)


def num_measurements(todo: Set[str]) -> int:
    """Rows are always measured; clusters are made of embeddings, so those with them."""
    implied = {"embed"} if "cluster" in todo else set[str]()
    return 1 + len((todo | implied) & {"embed", "cluster", "perplexity", "finetune"})


def _measure(
    config: Config, cluster: Nodes, sample: sampling.Sample, todo: set[str], told: Told
) -> Measured:
    """A measurement for each stage that computes, one after another."""
    speeds: dict[str, Speed] = {}
    starts: dict[str, float] = {}
    told.begin(num_measurements(todo))
    drawn = sample.lines, sample.places
    (rows,), starts["tokens"] = _in_tasks(
        told, "tokens", {"num_cpus": 1}, probe.measure_rows, config, cluster, *drawn
    )
    measured = Measured(sample.num_lines, len(sample.lines), rows, speeds, starts)
    known = Forecast(config, cluster, measured)
    if rows.texts and todo & {"embed", "cluster"}:
        _measure_actors(told, "embed", known, probe.measure_embedding, rows.texts)
    if rows.texts and "cluster" in todo:
        _measure_kmeans(told, known)
    if len(rows.input_ids) and "perplexity" in todo:
        budget = config.resources.score_batch_tokens
        assert budget is not None, "resolved before a probe"
        budgets = [budget, max(1, budget // 2), 2 * budget]
        scored = rows.input_ids, rows.scored, budgets
        _measure_actors(told, "perplexity", known, probe.measure_scoring, *scored)
    training = np.flatnonzero(rows.is_train)
    if len(training) and "finetune" in todo:
        taken = rows.input_ids.take(training), rows.scored.take(training)
        room = {"num_cpus": cluster.cpus_per_train_worker, "num_gpus": cluster.gpus_per_worker}
        (speeds["finetune"],), starts["finetune"] = _in_tasks(
            told,
            "finetune",
            room,
            probe.measure_training,
            config,
            cluster,
            *taken,
            known.num_training_rows,
        )
    return measured


def _measure_actors(
    told: Told, stage: str, known: Forecast, work: Callable[..., Speed], *arguments: Any
) -> None:
    """Measure a stage whose actors work side by side: on CPUs they take speed from one another."""
    actors = known.actors(stage)
    room = {"num_cpus": actors.cpus_per_worker, "num_gpus": actors.gpus_per_worker}
    busy = 1
    if not actors.gpus_per_worker:
        beside = actors.num_cpus_one_node // actors.cpus_per_worker
        busy = max(1, min(beside, actors.num_workers(known.num_shards)))
    found, known.measured.starts[stage] = _in_tasks(
        told, stage, room, work, known.config, actors, *arguments, count=busy
    )
    known.measured.speeds[stage] = sorted(found, key=lambda speed: speed.seconds)[busy // 2]


def _measure_kmeans(told: Told, known: Forecast) -> None:
    cluster, measured = known.cluster, known.measured
    options = cluster.kmeans_options
    rows, k = known.kmeans_size
    size = rows, measured.speeds["embed"].details["dimension"], k
    room = options["num_cpus"], bool(cluster.gpus_per_worker)
    (measured.speeds["cluster"],), measured.starts["cluster"] = _in_tasks(
        told, "cluster", options, probe.measure_kmeans, *size, *room
    )


def _in_tasks(
    told: Told,
    stage: str,
    options: dict[str, Any],
    work: Callable[..., Any],
    *arguments: Any,
    count: int = 1,
) -> tuple[list[Any], float]:
    """Measure in `count` processes at once: their results, and the seconds until one was ready."""
    import ray
    from ray.exceptions import RayError

    began = time.perf_counter()
    task = ray.remote(max_calls=1, max_retries=0, **options)(work)
    told.stage(stage)
    try:
        pending = tasks = [task.remote(*arguments) for _ in range(count)]
        while pending:
            _, pending = ray.wait(pending, num_returns=len(pending), timeout=TICK_SECONDS)
            told.still(stage)
        results = ray.get(tasks)
    except RayError as error:
        raise for_a_person(
            f"the probe of {stage}",
            error,
            "A worker that died without a word was most often out of memory: lower "
            "resources.score_batch_tokens or choose a smaller proxy.",
        ) from None
    busy = max(result.busy_seconds for result in results)
    return results, max(0.0, time.perf_counter() - began - busy)
