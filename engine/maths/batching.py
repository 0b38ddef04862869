"""Which rows go together: batches for scoring, steps and micro-batches for training.

Everything here is a pure function of lengths, ids and seeds, so that results cannot depend on how
many workers there are or in which order they run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def length_sorted_batches(lengths: npt.NDArray[np.integer], max_tokens: int) -> list[Indices]:
    """Cut rows into batches of similar length, longest first.

    Args:
        lengths: int[n], tokens per row.
        max_tokens: most padded tokens (rows x longest row) in a batch; a single longer row is a
            batch of its own.

    Returns:
        Index arrays that together hold 0 … n-1 once. Equal lengths keep their order. Longest
        first, so that a batch too large for memory fails at the start and not at the end.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").astype(np.int64)
    batches: list[Indices] = []
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        size = max(1, max_tokens // longest)
        batches.append(order[start : start + size])
        start += size
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
    rows: Indices, lengths: npt.NDArray[np.integer], num_rows: int, rank: int, world_size: int
) -> list[Indices]:
    """One rank's share of a global batch, in micro-batches of rows of similar length.

    Args:
        rows: the global batch.
        lengths: int[n], tokens per row of the pool.
        num_rows: rows per micro-batch.
        rank: this worker's place, 0 … world_size-1.
        world_size: number of workers.

    Returns:
        Micro-batches; every rank gets the same number, short ranks some empty ones, so that
        collective operations stay in step. Together the ranks hold every row once.
    """
    longest_first = rows[np.argsort(-np.asarray(lengths)[rows], kind="stable")]
    cut = [longest_first[i : i + num_rows] for i in range(0, len(rows), num_rows)]
    while len(cut) % world_size:
        cut.append(rows[:0])
    return cut[rank::world_size]


def pad(rows: Sequence[npt.NDArray[np.int32]], fill: int) -> npt.NDArray[np.int64]:
    """Stack token ids into int64[len(rows), longest], filled up on the right with `fill`.

    Under causal attention nothing on the right is seen, so any valid token id serves as `fill`.
    """
    longest = max(len(row) for row in rows)
    padded = np.full((len(rows), longest), fill, dtype=np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded
