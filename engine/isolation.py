"""Finding the row that breaks a worker, so that it costs one row and not the shard. No Ray.

A shard that fails, by an exception or by the death of its worker, is tried again in pieces, and the
piece that fails row by row. A row that fails alone is given up, and the shard computed without it.
What has been tried stands in a small file beside the results: the next worker reads there what the
dead one was at. A row that kills its worker costs four deaths: one of the shard, one of its piece,
two of its own, since a worker may die for other reasons too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.errors import WorkerError
from engine.storage import patiently

DIED = "the worker died"
MAX_FAILURES = 3
"""Times that a shard may fail as a whole while each of its rows gets through alone."""
ROW_DEATHS = 2
MAX_READS = 20
"""Deaths of a worker while a shard waits to be computed: they are another shard's."""
MAX_LOST_NODES = 5
"""Deaths over one shard that are laid to nodes that went as well. Later ones are laid to the shard:
a row whose memory takes its container along looks just like that."""
MAX_FAILED_ROWS, MAX_FAILED_FRACTION = 3, 0.01
"""Rows of a shard that may be given up: this many, or this part. More is no bad row but a bad
model, a bug, or too little memory."""

Piece = tuple[int, int]


@dataclass(frozen=True)
class Story:
    """What has been tried on one shard."""

    num_rows: int
    failures: int = 0
    """Of the shard as a whole."""
    suspects: tuple[Piece, ...] = ()
    """Pieces yet to be tried, as (first row, row after the last); none: the shard as a whole."""
    deaths: int = 0
    """Of workers on the first suspect, once that is a single row."""
    failed: Mapping[int, str] = field(default_factory=dict)
    """Rows that are given up, and why."""

    @property
    def is_whole(self) -> bool:
        """Whether the whole shard is up next: what then comes out is the result."""
        return not self.suspects

    def skip(self) -> npt.NDArray[np.bool_]:
        """bool[num_rows]: rows to leave out of the next trial."""
        start, stop = self.suspects[0] if self.suspects else (0, self.num_rows)
        skip = np.ones(self.num_rows, dtype=np.bool_)
        skip[start:stop] = False
        skip[list(self.failed)] = True
        return skip

    def after_success(self) -> Story:
        """The trial of a piece got through."""
        return replace(self, suspects=self.suspects[1:], deaths=0)

    def after_failure(self, reason: str) -> Story:
        """The trial failed.

        Args:
            reason: what is said of a row that is given up for it; `DIED` counts twice.

        Raises:
            WorkerError: the fault is not in single rows.
        """
        if self.is_whole:
            if self.failures == MAX_FAILURES:
                raise WorkerError(
                    f"it failed {MAX_FAILURES + 1} times ({reason}), though each of its rows gets "
                    "through alone.\nThat is most often memory: lower "
                    "resources.score_batch_tokens, resources.embed_batch_rows or "
                    "resources.num_workers."
                )
            size = math.isqrt(max(1, self.num_rows - 1))  # as many pieces as each has rows
            pieces = _cut(0, self.num_rows, size)
            return replace(self, failures=self.failures + 1, suspects=pieces)
        (start, stop), *rest = self.suspects
        if stop - start > 1:
            return replace(self, suspects=(*_cut(start, stop, 1), *rest))
        if reason == DIED and self.deaths + 1 < ROW_DEATHS:
            return replace(self, deaths=self.deaths + 1)
        return replace(self, suspects=tuple(rest), deaths=0, failed=self._with(start, reason))

    def _with(self, row: int, reason: str) -> dict[int, str]:
        failed = {**self.failed, row: reason}
        if len(failed) > max(MAX_FAILED_ROWS, MAX_FAILED_FRACTION * self.num_rows):
            raise WorkerError(
                f"{len(failed)} of its {self.num_rows:,} rows fail, the last one with: {reason}.\n"
                "So many bad rows are more likely a fault of the model or the installation."
            )
        return failed


def _cut(start: int, stop: int, size: int) -> tuple[Piece, ...]:
    return tuple((first, min(first + size, stop)) for first in range(start, stop, size))


class Attempts:
    """A shard's story on disk, told on by one worker after the other."""

    def __init__(
        self,
        path: Path,
        num_rows: int,
        node: str = "",
        is_lost: Callable[[str], bool] = lambda node: False,
    ) -> None:
        """Take the story up.

        Args:
            path: where it is kept.
            num_rows: of the shard.
            node: where this worker runs.
            is_lost: whether a node has gone since. A death that came with the whole machine's is
                not counted, `MAX_LOST_NODES` times: then the shard may be what takes them down.

        Raises:
            WorkerError: workers die over this shard, and no single row is to blame.
        """
        self.path, self.node = path, node
        before = _read(path, num_rows)
        self.story, self.reads, self.lost = before.story, before.reads, before.lost
        if before.node and before.lost < MAX_LOST_NODES and is_lost(before.node):
            self.lost += 1
            return
        self.reads = 1 if before.computing else self.reads + 1
        if before.computing:
            self.failed(DIED)
        if self.reads > MAX_READS:
            raise WorkerError(f"its worker died {MAX_READS} times before it began to compute")

    def begin(self, computing: bool) -> None:
        """Note down what comes next: reading, or computing, for which a death then counts."""
        told = asdict(_Note(self.story, self.reads, computing, self.node, self.lost))
        temporary = self.path.with_suffix(".new")

        def write() -> None:
            temporary.parent.mkdir(exist_ok=True)
            temporary.write_text(json.dumps(told))
            temporary.replace(self.path)

        patiently(write)

    def succeeded(self) -> None:
        """What was computed got through."""
        self.story = self.story.after_success()

    def failed(self, reason: str) -> None:
        """What was computed failed; see `Story.after_failure`."""
        self.story = self.story.after_failure(reason)

    def end(self) -> None:
        """The shard is done."""
        patiently(partial(self.path.unlink, missing_ok=True))


@dataclass(frozen=True)
class _Note:
    """What stands on disk."""

    story: Story
    reads: int = 0
    """Times that the story was taken up since a worker last died computing."""
    computing: bool = False
    """Whether its last worker was computing, so that its death counts."""
    node: str = ""
    """Where that worker ran."""
    lost: int = 0
    """Deaths that came with their nodes, and were not counted."""


def _read(path: Path, num_rows: int) -> _Note:
    try:
        told = json.loads(patiently(path.read_text))
    except (FileNotFoundError, ValueError):
        return _Note(Story(num_rows))
    story = told.pop("story")
    story["suspects"] = tuple((start, stop) for start, stop in story["suspects"])
    story["failed"] = {int(row): reason for row, reason in story["failed"].items()}
    return _Note(Story(**story), **told)
