"""What every stage of a run will take, scaled up from what a sample took. Arithmetic alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from engine.config import Config
from engine.maths.kmeans import num_clusters, num_flops
from engine.models import embedder_bytes, proxy_bytes
from engine.nodes import Nodes
from engine.probe import Rows, Speed
from engine.step import Step

MAP_SECONDS, TRAIN_SECONDS = 1.5, 6.0
"""Rough seconds of a stage beside its workers' start and work: Ray Data's set-up; Ray Train's
controller, the process group, DeepSpeed's set-up, saving the weights and loading them once more."""
TWO_LEVEL_COST = 7.0
"""Seconds of a FLOP in two levels by those of flat k-means, which is one large product: 200,000 x
384 with k = 4,000 took 52 s for 1.9 TFLOP on two cores of 250 GFLOP/s."""
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
    speeds: dict[str, Speed] = field(default_factory=dict)
    """By stage; of ``cluster`` the seconds of one FLOP. Filled stage by stage."""
    starts: dict[str, float] = field(default_factory=dict)
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
class Forecast:
    """What is known of a pool before it is read: a sample, and how far it is scaled."""

    config: Config
    """Resolved settings."""
    cluster: Nodes
    measured: Measured

    @property
    def factor(self) -> float:
        """The pool over the sample."""
        return self.measured.factor

    @property
    def sample(self) -> Rows:
        return self.measured.rows

    @property
    def num_rows(self) -> int:
        return round(self.sample.num_rows * self.factor)

    @property
    def num_shards(self) -> int:
        """As `stages.pool` cuts them."""
        pool = self.config.pool
        rows = self.num_rows / pool.rows_per_shard(self.num_rows)
        size = self.sample.raw_bytes * self.factor / pool.shard_bytes
        return max(1, math.ceil(max(rows, size)))

    def actors(self, stage: str) -> Nodes:
        """The cluster as the stage shares it out."""
        sizes = {"embed": embedder_bytes, "perplexity": proxy_bytes}
        return self.cluster.for_shards(self.num_shards, sizes[stage](self.config))

    @property
    def kmeans_size(self) -> tuple[int, int]:
        """Rows to cluster, and clusters."""
        rows = max(1, round(self.sample.num_embedded * self.factor))
        clusters = self.config.clusters
        return rows, num_clusters(rows, clusters.rows_per_cluster, clusters.num)

    @property
    def num_training_rows(self) -> int:
        """Rows of a training epoch."""
        return round(int(self.sample.is_train.sum()) * self.factor)

    @property
    def num_selected(self) -> int:
        """Rows that select will take."""
        select = self.config.select
        candidates = self.num_training_rows
        if select.rows is not None:
            return min(select.rows, candidates)
        if select.tokens is not None:
            mean = max(1.0, self.sample.input_ids.lengths.mean())
            return min(round(select.tokens / mean), candidates)
        return round(candidates * float(select.percent or 0) / 100)

    def mapped_seconds(self, stage: str, seconds: float, actors: Nodes) -> float:
        """Of a stage whose actors share shards that take one of them `seconds` for the sample."""
        # Shards are not divided: the busiest worker decides.
        busiest = math.ceil(self.num_shards / actors.num_workers(self.num_shards))
        start = self.measured.starts.get(stage, 0.0)
        return start + MAP_SECONDS + seconds * self.factor * busiest / self.num_shards


def stages(known: Forecast, steps: list[tuple[Step, bool]]) -> list[StageEstimate]:
    """What every stage will take.

    Args:
        known: what is known of the pool.
        steps: the stages in order, and whether each is finished.
    """
    return [
        StageEstimate(step.label, done=True) if done else _stage(step, known)
        for step, done in steps
    ]


def _stage(step: Step, known: Forecast) -> StageEstimate:
    name, num_rows = step.stage, known.num_rows
    plain = StageEstimate(
        step.label,
        rows=num_rows,
        shards=known.num_shards if name in _SHARDED else 0,
        disk_bytes=BYTES_PER_ROW.get(name, 0.0) * num_rows,
        seconds=SECONDS_PER_ROW.get(name, 0.0) * num_rows,
        memory_bytes=known.sample.pool_memory_bytes + MEMORY_PER_ROW.get(name, 0) * num_rows,
    )
    if name in _BY_STAGE:
        return replace(plain, **_BY_STAGE[name](known))
    speed = known.measured.speeds.get(name)
    return replace(plain, **_BY_SPEED[name](known, speed, step)) if speed else plain


def _pool(known: Forecast) -> dict[str, Any]:
    return {
        "seconds": known.sample.pool_seconds * known.factor,
        "disk_bytes": known.sample.pool_bytes * known.factor,
    }


def _tokens(known: Forecast) -> dict[str, Any]:
    sample, actors = known.sample, known.cluster.one_core_each()
    return {
        "tokens": round(sample.input_ids.lengths.sum() * known.factor),
        "seconds": known.mapped_seconds("tokens", sample.token_seconds, actors),
        "disk_bytes": sample.token_bytes * known.factor,
        "memory_bytes": sample.memory_bytes,
    }


def _select(known: Forecast) -> dict[str, Any]:
    each = 1.5 * known.sample.raw_bytes / max(1, known.sample.num_rows)
    return {"rows": known.num_selected, "disk_bytes": each * known.num_selected}


def _report(known: Forecast) -> dict[str, Any]:
    return {"disk_bytes": REPORT_BYTES}


def _embed(known: Forecast, speed: Speed, step: Step) -> dict[str, Any]:
    vectors = known.factor * known.sample.num_embedded * 4 * speed.details["dimension"]
    return {**_mapped(known, speed, step), "disk_bytes": vectors + ID_BYTES * known.num_rows}


def _mapped(known: Forecast, speed: Speed, step: Step) -> dict[str, Any]:
    return {
        "tokens": round(speed.tokens * known.factor),
        "flops": speed.flops * known.factor,
        "seconds": known.mapped_seconds(step.stage, speed.seconds, known.actors(step.stage)),
        "memory_bytes": speed.memory_bytes,
    }


def _cluster(known: Forecast, speed: Speed, step: Step) -> dict[str, Any]:
    rows, k = known.kmeans_size
    dimension = known.measured.speeds["embed"].details["dimension"]
    two_level = rows >= known.config.clusters.two_level_from
    flops = num_flops(rows, dimension, k, known.config.clusters.num_iterations, two_level)
    work = speed.seconds * flops * (TWO_LEVEL_COST if two_level else 1)
    return {
        "flops": flops,
        "seconds": known.measured.starts.get("cluster", 0.0) + work,
        "memory_bytes": speed.memory_bytes + 2 * 4 * dimension * rows,
        "disk_bytes": BYTES_PER_ROW["cluster"] * known.num_rows + 4 * dimension * k,
    }


def _finetune(known: Forecast, speed: Speed, step: Step) -> dict[str, Any]:
    tokens, follows = speed.tokens * known.factor, step.epoch < known.config.finetune.num_epochs
    start = known.measured.starts.get("finetune", 0.0) + TRAIN_SECONDS
    return {
        "rows": known.num_training_rows,
        "tokens": round(tokens),
        "flops": speed.flops * known.factor,
        "seconds": start + speed.seconds * known.factor / known.cluster.train_workers,
        # Every training worker holds all rows; the sample's are in the measured memory.
        "memory_bytes": speed.memory_bytes + 8.0 * (tokens - speed.tokens),
        "disk_bytes": speed.details["weights"] * (WEIGHT_BYTES + STATE_BYTES * follows),
    }


_BY_STAGE: dict[str, Callable[[Forecast], dict[str, Any]]] = {
    "pool": _pool,
    "tokens": _tokens,
    "select": _select,
    "report": _report,
}
_BY_SPEED: dict[str, Callable[[Forecast, Speed, Step], dict[str, Any]]] = {
    "embed": _embed,
    "cluster": _cluster,
    "perplexity": _mapped,
    "finetune": _finetune,
}
"""Stages whose models the probe has measured."""
