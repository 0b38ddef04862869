"""Ranks inside clusters, exact quotas, and which rows a selection takes.

Nothing here depends on the order of the rows: ties break by (id, row), and quotas are counted in
integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Keys:
    """What selection needs of each candidate row; four arrays of the same length n."""

    cluster: Ints
    score: Floats
    id: npt.NDArray[np.str_]
    row: Ints

    def order(self) -> Ints:
        """Indices sorted by (cluster, score, id, row): each cluster a run, lowest score first."""
        return np.lexsort((self.row, self.id, self.score, self.cluster)).astype(np.int64)


@dataclass(frozen=True)
class _Runs:
    """Sorted candidates, and where each cluster's run of them begins and how long it is."""

    order: Ints
    starts: Ints
    sizes: Ints

    @classmethod
    def of(cls, keys: Keys) -> _Runs:
        order = keys.order()
        _, starts, sizes = np.unique(keys.cluster[order], return_index=True, return_counts=True)
        return cls(order, starts.astype(np.int64), sizes.astype(np.int64))


def rank_in_cluster(keys: Keys) -> Ints:
    """int64[n]: each row's place in its cluster, 0 = lowest score."""
    runs = _Runs.of(keys)
    ranks = np.empty(len(runs.order), dtype=np.int64)
    ranks[runs.order] = np.arange(len(runs.order)) - np.repeat(runs.starts, runs.sizes)
    return ranks


def share_of_percent(percent: Fraction, num_rows: int) -> int:
    """``round(percent * num_rows / 100)``, halves up, in integers."""
    exact = percent * num_rows / 100
    return int((2 * exact.numerator + exact.denominator) // (2 * exact.denominator))


def quotas(
    sizes: Sequence[int], share: Fraction, total: int, next_best: Sequence[int]
) -> list[int]:
    """Largest-remainder quotas: how many rows each cluster gives.

    Args:
        sizes: rows per cluster.
        share: part of each cluster that is wanted, between 0 and 1.
        total: rows to give out; within one per cluster of ``share * sum(sizes)``.
        next_best: clusters in the order in which equal remainders are served.

    Returns:
        One quota per cluster: the whole part of ``share * size``, and one more for the largest
        remainders until `total` is reached.
    """
    exact = [share * size for size in sizes]
    quota = [int(value) for value in exact]  # rounds down: shares are not negative
    place = {cluster: index for index, cluster in enumerate(next_best)}
    by_remainder = sorted(range(len(sizes)), key=lambda c: (quota[c] - exact[c], place[c]))
    for cluster in by_remainder[: total - sum(quota)]:
        quota[cluster] += 1
    return quota


def select_share(keys: Keys, share: Fraction, total: int, order: str) -> Ints:
    """The lowest, middle or highest `share` of every cluster, exactly `total` rows in all.

    Args:
        keys: the candidates.
        share: part of each cluster, between 0 and 1.
        total: rows in all.
        order: ``low``, ``mid`` or ``high``.

    Returns:
        Indices of the selected candidates, sorted.
    """
    ordered = keys if order != "high" else _negated(keys)
    runs = _Runs.of(ordered)
    floors = np.array([int(share * int(size)) for size in runs.sizes], dtype=np.int64)
    # Equal remainders go to the cluster whose next row is the better one, then the smaller id.
    following = runs.order[runs.starts + np.minimum(floors, runs.sizes - 1)]
    serve = np.lexsort((ordered.row[following], ordered.id[following], ordered.score[following]))
    quota = np.array(quotas(runs.sizes.tolist(), share, total, serve.tolist()), dtype=np.int64)
    first = (runs.sizes - quota) // 2 if order == "mid" else np.zeros_like(quota)
    return _take(runs, first, quota)


def select_reference(keys: Keys, percent: Fraction, order: str) -> Ints:
    """The published code's rule: each cluster split by `array_split` into ``100 // percent`` parts.

    It rounds up per cluster, so "10%" of Dolly is 10.8%. Kept for those who must reproduce it.
    """
    runs = _Runs.of(keys)
    parts = max(1, int(100 / percent))
    which = {"low": 0, "mid": parts // 2, "high": parts - 1}[order]
    whole, extra = runs.sizes // parts, runs.sizes % parts
    quota = whole + (which < extra)
    first = which * whole + np.minimum(which, extra)
    return _take(runs, first, quota)


def select_tokens(keys: Keys, num_tokens: Ints, budget: int, order: str) -> Ints:
    """As many rows as fit into a token budget, equally deep in every cluster.

    Rows are taken in the order of their relative rank in their cluster (from the low end, the
    high end or the middle), then score, then id, until the next row would go over the budget.
    """
    ordered = keys if order != "high" else _negated(keys)
    runs = _Runs.of(ordered)
    place = np.arange(len(runs.order)) - np.repeat(runs.starts, runs.sizes)
    sizes = np.repeat(runs.sizes, runs.sizes)
    # Twice the distance from the run's end or centre is whole, so equal depths tie exactly.
    depth = (np.abs(2 * place + 1 - sizes) if order == "mid" else 2 * place + 1) / sizes
    by = runs.order
    queue = by[np.lexsort((ordered.row[by], ordered.id[by], ordered.score[by], depth))]
    fits = int(np.searchsorted(np.cumsum(num_tokens[queue]), budget, side="right"))
    return np.sort(queue[:fits])


def _negated(keys: Keys) -> Keys:
    return Keys(keys.cluster, -keys.score, keys.id, keys.row)


def _take(runs: _Runs, first: Ints, quota: Ints) -> Ints:
    """Sorted indices of `quota` rows of each run, from its place `first` on."""
    taken = [
        runs.order[start + skip : start + skip + size]
        for start, skip, size in zip(runs.starts, first, quota, strict=True)
    ]
    return np.sort(np.concatenate(taken)) if taken else np.zeros(0, dtype=np.int64)
