"""Which rows go together: batches for scoring, steps and micro-batches for training.

Everything here is a pure function of lengths, ids and seeds, so that results cannot depend on how
many workers there are or in which order they run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LengthRule:
    """Which rows may share a padded batch; as it stands, any may.

    A model may treat a row by the length of its batch, which is that of the longest row in it.
    """

    borders: tuple[int, ...] = ()
    """Rows of up to so many tokens never share a batch with longer ones; ascending."""
    equal_above: int | None = None
    """Rows of more tokens than this share a batch only with rows as long; 0 for all rows."""

    def kinds(self, lengths: npt.NDArray[np.integer]) -> Indices:
        """int64[n]: rows of equal numbers may share a batch. Longer rows have no smaller number."""
        kinds = np.searchsorted(np.asarray(self.borders, dtype=np.int64), lengths, side="left")
        if self.equal_above is None:
            return kinds.astype(np.int64)
        alike = np.asarray(lengths, dtype=np.int64) + len(self.borders)
        return np.where(np.asarray(lengths) > self.equal_above, alike, kinds).astype(np.int64)


ANY_LENGTHS = LengthRule()


def length_sorted_batches(
    lengths: npt.NDArray[np.integer], max_tokens: int, rule: LengthRule = ANY_LENGTHS
) -> list[Indices]:
    """Cut rows into batches of similar length, longest first.

    Args:
        lengths: int[n], tokens per row.
        max_tokens: most padded tokens (rows x longest row) in a batch; a single longer row is a
            batch of its own.
        rule: which rows may share a batch.

    Returns:
        Index arrays that together hold 0 … n-1 once. Equal lengths keep their order. Longest
        first, so that a batch too large for memory fails at the start and not at the end.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").astype(np.int64)
    kinds = rule.kinds(np.asarray(lengths)[order])
    ends = np.append(np.flatnonzero(np.diff(kinds)) + 1, len(order))  # of rows of one kind
    batches: list[Indices] = []
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        end = min(start + max(1, max_tokens // longest), int(ends[ends > start][0]))
        batches.append(order[start:end])
        start = end
    return batches


def epoch_order(ids: Sequence[str], seed: int, epoch: int) -> Indices:
    """The order in which an epoch visits its rows: by SHA-256 of (seed, epoch, id).

    A pure function of the ids, so shards, files and workers may be laid out in any way. Equal ids
    keep their order.
    """
    prefix = f"{seed}:{epoch}:".encode()
    keys = [hashlib.sha256(prefix + row_id.encode()).digest() for row_id in ids]
    return np.array(sorted(range(len(ids)), key=keys.__getitem__), dtype=np.int64)


def steps(order: Indices, batch_size: int) -> list[Indices]:
    """Global batches of an epoch, in order; the short last one is kept."""
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def micro_batches(
    rows: Indices,
    lengths: npt.NDArray[np.integer],
    max_tokens: int,
    rank: int,
    world_size: int,
    rule: LengthRule = ANY_LENGTHS,
) -> list[Indices]:
    """One rank's share of a global batch, in micro-batches of rows of similar length.

    The rows are dealt out by length, so that all ranks get nearly the same work.

    Args:
        rows: the global batch.
        lengths: int[n], tokens per row of the pool.
        max_tokens: most padded tokens (rows x longest row) in a micro-batch.
        rank: this worker's place, 0 … world_size-1.
        world_size: number of workers.
        rule: which rows may share a micro-batch.

    Returns:
        Micro-batches, longest rows first; every rank gets the same number, short ranks some empty
        ones, so that collective operations stay in step. Together the ranks hold every row once.
    """
    longest_first = rows[np.argsort(-np.asarray(lengths)[rows], kind="stable")]
    shares = [longest_first[share::world_size] for share in range(world_size)]
    cut = [
        [share[batch] for batch in length_sorted_batches(lengths[share], max_tokens, rule)]
        for share in shares
    ]
    most = max(map(len, cut))
    return cut[rank] + [rows[:0]] * (most - len(cut[rank]))
