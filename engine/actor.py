"""What runs inside a Ray Data actor: a stage's worker, shard after shard.

The actor lets the worker read and compute a shard, commits the result under the same name and gives
back one receipt row. What breaks the worker is taken apart by `isolation`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray

from engine import heartbeat
from engine.errors import DEVICE_LOST, PoolscoreError, WorkerError
from engine.failures import storage_error
from engine.isolation import Attempts
from engine.parallel import peak_memory_bytes
from engine.step import POOL, Step


@dataclass(frozen=True)
class Made:
    """One shard's result: the table to commit, rows per flag, and counts to add up."""

    table: pa.Table
    flags: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


Skip: TypeAlias = npt.NDArray[np.bool_] | None
"""bool[rows of a shard]: those to leave out, since they break the worker; None leaves out none."""


class Worker(Protocol):
    """What a stage gives to the actors: loads in ``__init__``, then shard by shard reads, computes.

    While one shard is computed another thread reads the next one, and commits the one before: an
    accelerator never waits for Parquet. One thread loads and computes, always the same; it calls
    `heartbeat.beat` for each batch.
    """

    def read(self, step: Step, shard: str, skip: Skip = None) -> Any:
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
        self.node = ray.get_runtime_context().get_node_id()
        self.compute = ThreadPoolExecutor(1, "compute")
        # Errors are told at the first call: out of a constructor Ray passes on a traceback as text.
        self.worker = self.compute.submit(self._load, make_worker, settings).result()

    def _load(
        self, make_worker: Callable[..., Worker], settings: dict[str, Any]
    ) -> Worker | PoolscoreError:
        loading = heartbeat.own_sign(self.working / "loading")
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
            attempts = Attempts(self.working / f"{shard}.json", num_rows, self.node, _is_lost)
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
            raise storage_error(f"{self.step.label}, {shard}", error) from None

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


def _is_lost(node: str) -> bool:
    """Whether a node has left the cluster."""
    return all(each["NodeID"] != node or not each["Alive"] for each in ray.nodes())


def _in_words(error: BaseException) -> str:
    """The kind of an exception and where it came from; its text may quote the row."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = ""
    if trace is not None:
        where = f" at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
    return f"{type(error).__name__}{where}"
