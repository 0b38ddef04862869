"""Ranks inside clusters, exact quotas, and which rows a selection takes.

Nothing here depends on the order of the rows: ties break by (id, row), and quotas are counted in
integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Keys:
    """What selection needs of each candidate row, 40 bytes a row; four arrays of length n."""

    cluster: Ints
    score: Floats
    """No NaN: a row without a score is no candidate."""
    id: npt.NDArray[np.uint64]
    """uint64[n, 2]: the 128 bits of the id, the high half first; ordered like its hex digits."""
    row: Ints

    @classmethod
    def stack(cls, parts: Sequence[Keys]) -> Keys:
        """The candidates of all parts (at least one), in order."""
        return cls(
            np.concatenate([part.cluster for part in parts]),
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.id for part in parts]),
            np.concatenate([part.row for part in parts]),
        )

    def take(self, index: Ints) -> Keys:
        """The candidates at these places."""
        return Keys(self.cluster[index], self.score[index], self.id[index], self.row[index])

    def order(self, first: Ints | Floats) -> Ints:
        """int64[n]: indices sorted by (first, score, id, row)."""
        order = np.argsort(self.score)
        order = order[np.argsort(first[order], kind="stable")]
        # Few rows tie in both, so ids and rows are compared only where they do.
        first, score = first[order], self.score[order]
        follows = np.zeros(len(order) + 1, dtype=bool)  # ties with the row before it
        follows[1:-1] = (first[1:] == first[:-1]) & (score[1:] == score[:-1])
        places = np.flatnonzero(follows[:-1] | follows[1:])
        group = np.cumsum(~follows[places])
        tied = order[places]
        settled = np.lexsort((self.row[tied], self.id[tied, 1], self.id[tied, 0], group))
        order[places] = tied[settled]
        return order


@dataclass(frozen=True)
class _Runs:
    """Candidates by (cluster, score, id, row), and where each cluster's run of them is."""

    order: Ints
    starts: Ints
    sizes: Ints

    @classmethod
    def of(cls, keys: Keys) -> _Runs:
        order = keys.order(keys.cluster)
        cluster = keys.cluster[order]
        is_start = np.ones(len(order), dtype=bool)
        is_start[1:] = cluster[1:] != cluster[:-1]
        starts = np.flatnonzero(is_start)
        return cls(order, starts, np.diff(starts, append=len(order)))

    def places(self) -> Ints:
        """int64[n]: each sorted candidate's place in its run, from 0."""
        return np.arange(len(self.order)) - np.repeat(self.starts, self.sizes)


def rank_in_cluster(keys: Keys) -> Ints:
    """int64[n]: each row's place in its cluster, 0 = lowest score."""
    runs = _Runs.of(keys)
    ranks = np.empty(len(runs.order), dtype=np.int64)
    ranks[runs.order] = runs.places()
    return ranks


def share_of_percent(percent: Fraction, num_rows: int) -> int:
    """``round(percent * num_rows / 100)``, halves up, in integers."""
    exact = percent * num_rows / 100
    return int((2 * exact.numerator + exact.denominator) // (2 * exact.denominator))


def quotas(sizes: Ints, share: Fraction, total: int, next_best: Ints) -> Ints:
    """Largest-remainder quotas: how many rows each cluster gives.

    Args:
        sizes: int64[k], rows per cluster.
        share: part of each cluster that is wanted, between 0 and 1.
        total: rows to give out; within one per cluster of ``share * sum(sizes)``.
        next_best: int64[k], clusters in the order in which equal remainders are served.

    Returns:
        int64[k], one quota per cluster: the whole part of ``share * size``, and one more for the
        largest remainders until `total` is reached.
    """
    whole, rest_rank = _parts(sizes, share)
    place = np.empty_like(next_best)
    place[next_best] = np.arange(len(next_best))
    by_remainder = np.lexsort((place, rest_rank))
    whole[by_remainder[: total - whole.sum()]] += 1
    return whole


def _parts(sizes: Ints, share: Fraction) -> tuple[Ints, Ints]:
    """The whole part of ``share * size``, and the rank of the rest, 0 = largest; equal if equal.

    In Python's integers, which are exact whatever the share, and once per size: there are few.
    """
    distinct, where = np.unique(sizes, return_inverse=True)
    parts = [divmod(share.numerator * int(size), share.denominator) for size in distinct]
    rank = {rest: r for r, rest in enumerate(sorted({rest for _, rest in parts}, reverse=True))}
    whole = np.array([whole for whole, _ in parts], dtype=np.int64)
    rest_rank = np.array([rank[rest] for _, rest in parts], dtype=np.int64)
    return whole[where], rest_rank[where]


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
    floors, _ = _parts(runs.sizes, share)
    # Equal remainders go to the cluster whose next row is the better one, then the smaller id.
    following = runs.order[runs.starts + np.minimum(floors, runs.sizes - 1)]
    best = ordered.take(following)
    quota = quotas(runs.sizes, share, total, best.order(best.score))
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
    place, sizes = runs.places(), np.repeat(runs.sizes, runs.sizes)
    depth = np.empty(len(place))
    # Twice the distance from the run's end or centre is whole, so equal depths tie exactly.
    depth[runs.order] = (np.abs(2 * place + 1 - sizes) if order == "mid" else 2 * place + 1) / sizes
    queue = ordered.order(depth)
    fits = int(np.searchsorted(np.cumsum(num_tokens[queue]), budget, side="right"))
    return np.sort(queue[:fits])


def _negated(keys: Keys) -> Keys:
    return replace(keys, score=-keys.score)


def _take(runs: _Runs, first: Ints, quota: Ints) -> Ints:
    """Sorted indices of `quota` rows of each run, from its place `first` on."""
    place = runs.places() - np.repeat(first, runs.sizes)
    return np.sort(runs.order[(place >= 0) & (place < np.repeat(quota, runs.sizes))])
