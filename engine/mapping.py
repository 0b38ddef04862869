"""Shards in, shards of the same name out: the one place that calls Ray Data.

Ray Data streams shard *names* through a fixed pool of actors. An actor lets the worker compute a
shard, commits the result under the same name and yields one receipt row. Rows never pass through
the object store, so neither block layout nor the number of actors can change a result, and a shard
done twice is the same file written twice.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray.data
from ray.util.annotations import RayDeprecationWarning
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from engine import heartbeat
from engine.errors import PoolscoreError, RunDirError, WorkerError
from engine.failures import for_people
from engine.isolation import Attempts
from engine.nodes import Nodes
from engine.parallel import peak_memory_bytes
from engine.progress import Progress
from engine.step import POOL, Outcome, Step

MAX_RESTARTS = MAX_TASK_RETRIES = -1
"""Actors come back without limit, and so does the shard that one died over: what becomes of that is
decided by `isolation`, which knows what has been tried."""
DEVICE_LOST = "CUDA error"
"""In the text of errors after which the process cannot use its GPU any more."""
IN_FLIGHT = 2
"""Shards an actor works on at once: one is computed, the other read or committed."""


@dataclass(frozen=True)
class Made:
    """One shard's result: the table to commit, rows per flag, and counts to add up."""

    table: pa.Table
    flags: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


class Worker(Protocol):
    """What a stage gives to the actors: loads in ``__init__``, then shard by shard reads, computes.

    While one shard is computed another thread reads the next one, and commits the one before: an
    accelerator never waits for Parquet. One thread loads and computes, always the same; it calls
    `heartbeat.beat` for each batch.
    """

    def read(self, step: Step, shard: str, skip: npt.NDArray[np.bool_] | None = None) -> Any:
        """Read the shard's inputs through `step`.

        Rows where bool[n] `skip` is set are left out, and are null in what is made of the rest.
        """
        ...

    def __call__(self, step: Step, inputs: Any, /) -> Made:
        """Compute a shard's result from what `read` gave."""
        ...


_NO_RECEIPT = {"shard": [""], "peak_memory_bytes": [0], "seconds": [0.0]}


class ShardActor:
    """Runs a worker on shard after shard inside a Ray Data actor.

    An error for people comes back as a row: Ray would retry it, and bury its text in a traceback.

    One thread loads and computes. Each thread that enters OpenMP gets a team of its own, and as
    soon as there are more threads in teams than cores, idle ones sleep instead of spinning: scoring
    took a quarter longer on two cores when two threads took turns.
    """

    def __init__(self, step: Step, make_worker: Callable[..., Worker], settings: dict[str, Any]):
        self.step = step
        self.working = step.run.path / step.folder / heartbeat.FOLDER
        self.compute = ThreadPoolExecutor(1, "compute")
        # Errors are told at the first call: out of a constructor Ray passes on a traceback as text.
        self.worker = self.compute.submit(self._load, make_worker, settings).result()

    def _load(
        self, make_worker: Callable[..., Worker], settings: dict[str, Any]
    ) -> Worker | PoolscoreError:
        loading = self.working / f"loading-{os.getpid()}{heartbeat.SIGN}"
        try:
            with heartbeat.at_work(loading), heartbeat.while_busy():
                return make_worker(**settings)
        except PoolscoreError as error:
            return error

    def __call__(self, batch: pa.Table) -> pa.Table:
        (shard,) = batch["shard"].to_pylist()
        began = time.monotonic()
        try:
            if isinstance(self.worker, PoolscoreError):
                raise self.worker
            self._shard(self.worker, shard)
        except PoolscoreError as error:
            return pa.table({**_NO_RECEIPT, "error": [str(error)]})
        return pa.table(
            {
                "shard": [shard],
                "peak_memory_bytes": [peak_memory_bytes()],
                "seconds": [time.monotonic() - began],
                "error": [""],
            }
        )

    def _shard(self, worker: Worker, shard: str) -> None:
        """Compute a shard and commit it, without the rows that break the worker."""
        num_rows = self.step.run.num_rows(POOL, shard)
        try:
            attempts = Attempts(self.working / f"{shard}.json", num_rows)
            heartbeat.remove(attempts.path.with_suffix(heartbeat.WORK))  # a dead worker's
            made = self._attempt(worker, shard, attempts)
            while not attempts.story.is_whole or made is None:
                made = self._attempt(worker, shard, attempts)
            # The receipt travels in the file, so it holds nothing that differs from run to run.
            receipt = {
                "rows": made.table.num_rows,
                "flags": dict(sorted(made.flags.items())),
                "counts": dict(made.counts),
                "failed": attempts.story.failed,
            }
            self.step.commit(shard, made.table, receipt)
            attempts.end()
        except WorkerError as error:
            raise WorkerError(f"{self.step.label}, {shard}: {error}") from None
        except OSError as error:
            raise RunDirError(
                f"{self.step.label}, {shard}: {error.strerror}: {error.filename}\nMake room or "
                "mend the access; finished shards are kept, and the same command goes on."
            ) from None

    def _attempt(self, worker: Worker, shard: str, attempts: Attempts) -> Made | None:
        """Compute what is up next; None where that was a piece, or failed."""
        is_whole = attempts.story.is_whole
        attempts.begin(computing=False)
        try:
            inputs = worker.read(self.step, shard, attempts.story.skip())
            made = self.compute.submit(self._compute, worker, inputs, attempts).result()
        except (PoolscoreError, OSError):
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001  a row may raise anything
            if DEVICE_LOST in str(error):
                os._exit(1)  # nothing more can be computed here; the next worker knows the story
            attempts.failed(_in_words(error))
            return None
        if is_whole:
            return made
        attempts.succeeded()
        return None

    def _compute(self, worker: Worker, inputs: Any, attempts: Attempts) -> Made:
        with heartbeat.at_work(attempts.path.with_suffix(heartbeat.WORK)):
            attempts.begin(computing=True)
            made = worker(self.step, inputs)
            attempts.begin(computing=False)
            return made


def _in_words(error: BaseException) -> str:
    """The kind of an exception and where it came from; its text may quote the row."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = ""
    if trace is not None:
        where = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return f"{type(error).__name__}{where}"


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
    working = step.run.path / step.folder / heartbeat.FOLDER
    shutil.rmtree(working, ignore_errors=True)  # an earlier run's stories
    num_workers = nodes.num_workers(len(missing))
    progress = Progress(step.label, sum(rows.values()), "rows")
    progress.begin(sum(rows.values()) - sum(rows[shard] for shard in missing))
    peak, startup, began = 0, 0.0, time.monotonic()
    if missing:
        stream = _map_names(step, nodes, make_worker, settings, missing, num_workers)
        with for_people(step), closing(stream):
            for done in stream:
                if done["error"]:
                    progress.finish()
                    raise WorkerError(done["error"])
                startup = startup or time.monotonic() - began - done["seconds"]
                progress.add(rows[done["shard"]])
                peak = max(peak, done["peak_memory_bytes"])
    progress.finish()
    shutil.rmtree(working, ignore_errors=True)
    outcome = _outcome([step.run.receipt(step.folder, shard) for shard in shards])
    details = {**outcome.details, "startup_seconds": round(startup, 3)}
    return replace(outcome, workers=num_workers, peak_memory_bytes=peak, details=details)


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
