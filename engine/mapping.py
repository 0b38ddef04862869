"""Shards in, shards of the same name out: the one place that calls Ray Data.

Ray Data streams shard *names* through a fixed pool of actors. An actor lets the worker compute a
shard, commits the result under the same name and yields one receipt row. Rows never pass through
the object store, so neither block layout nor the number of actors can change a result, and a shard
done twice is the same file written twice.
"""

from __future__ import annotations

import logging
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray.data
from ray.util.annotations import RayDeprecationWarning
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from engine import heartbeat
from engine.actor import ShardActor, Worker
from engine.errors import WorkerError
from engine.failures import for_people
from engine.nodes import Nodes
from engine.progress import Progress
from engine.step import POOL, Outcome, Step

MAX_RESTARTS = MAX_TASK_RETRIES = -1
"""Actors come back without limit, and so does the shard that one died over: what becomes of that is
decided by `isolation`, which knows what has been tried."""
IN_FLIGHT = 2
"""Shards an actor works on at once: one is computed, the other read or committed."""


def map_shards(
    step: Step, nodes: Nodes, make_worker: Callable[..., Worker], settings: dict[str, Any]
) -> Outcome:
    """Run ``make_worker(**settings)`` over every shard the step has yet to write.

    Shards of an earlier, interrupted run are kept. The outcome covers all shards, since each
    carries its own receipt; its `details` hold the workers' summed counts, and the seconds until
    the first shard was begun.
    """
    shards = step.shards()
    missing = step.missing()
    rows = {shard: step.run.num_rows(POOL, shard) for shard in shards}
    working = step.run.make(step.folder) / heartbeat.FOLDER
    num_workers = nodes.num_workers(len(missing))
    progress = Progress(step.label, sum(rows.values()), "rows")
    progress.begin(sum(rows.values()) - sum(rows[shard] for shard in missing))
    peak, startup, began = 0, 0.0, time.monotonic()
    if missing:
        workers = f"{num_workers} worker{'s' * (num_workers > 1)}"
        left = {shard: rows[shard] for shard in missing}
        stream = _map_names(step, nodes, make_worker, settings, missing, num_workers)
        with (
            for_people(step),
            progress.ticking(f"starting {workers} …", lambda: _under_way(working, dict(left))),
            closing(stream),
        ):
            for done in stream:
                if done["error"]:
                    raise WorkerError(done["error"])
                startup = startup or time.monotonic() - began - done["seconds"]
                progress.add(left.pop(done["shard"]))
                peak = max(peak, done["peak_memory_bytes"])
    shutil.rmtree(working, ignore_errors=True)
    outcome = _outcome([step.run.receipt(step.folder, shard) for shard in shards])
    details = {**outcome.details, "startup_seconds": round(startup, 3)}
    return replace(outcome, workers=num_workers, peak_memory_bytes=peak, details=details)


def _under_way(working: Path, rows: Mapping[str, int]) -> int:
    """Rows that are done of shards that are not, as far as their workers have told.

    Args:
        working: the folder of their signs of life.
        rows: of each shard that is still to come.
    """
    told = ((working / f"{shard}{heartbeat.WORK}", num) for shard, num in rows.items())
    try:
        there = {path.name for path in working.iterdir()}
    except OSError:
        return 0
    return sum(min(heartbeat.rows_done(p), num) for p, num in told if p.name in there)


def _map_names(
    step: Step,
    nodes: Nodes,
    make_worker: Callable[..., Worker],
    settings: dict[str, Any],
    names: list[str],
    num_workers: int,
) -> Generator[dict[str, Any], None, None]:
    """Stream shard names through the actor pool; yields a receipt for each committed shard."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # ours is the progress people read
    items = ray.data.from_items([{"shard": n} for n in names], override_num_blocks=len(names))
    with _rooms(nodes, num_workers) as rooms, warnings.catch_warnings():
        # Ray deprecates passing an actor's limits here, yet has no other place for them so far.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        dataset = items.map_batches(
            ShardActor,
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                size=num_workers,
                max_tasks_in_flight_per_actor=IN_FLIGHT,
                max_concurrent_calls_per_actor=IN_FLIGHT,
                enable_true_multi_threading=True,
            ),
            fn_constructor_args=(step, make_worker, settings),
            num_cpus=nodes.cpus_per_worker,
            num_gpus=nodes.gpus_per_worker,
            scheduling_strategy=rooms,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_TASK_RETRIES,
        )
        yield from dataset.iter_rows()


@contextmanager
def _rooms(nodes: Nodes, num_workers: int) -> Iterator[PlacementGroupSchedulingStrategy]:
    """Cores and GPUs for `num_workers` actors, given back at the end whatever has happened.

    After an error Ray Data drops its actors' handles and leaves the rest to reference counting: an
    actor that is just being restarted, or whose handle a kept exception still holds, would keep
    its cores for good, and the next stage would wait for them without end.
    """
    room = {"CPU": float(nodes.cpus_per_worker), "GPU": float(nodes.gpus_per_worker)}
    group = placement_group([{k: v for k, v in room.items() if v}] * num_workers)
    try:
        yield PlacementGroupSchedulingStrategy(group)
    finally:
        remove_placement_group(group)


def _outcome(receipts: list[dict[str, Any]]) -> Outcome:
    flags: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for receipt in receipts:
        flags.update(receipt["flags"])
        counts.update(receipt["counts"])
        failed.update(receipt["failed"].values())
    num_rows = sum(receipt["rows"] for receipt in receipts)
    return Outcome(
        rows_in=num_rows,
        rows_out=num_rows,
        flags=dict(flags),
        tokens=counts.pop("tokens", 0),
        details={**counts, **({"failed_rows": dict(failed)} if failed else {})},
    )
