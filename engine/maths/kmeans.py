"""k-means over sentence embeddings, by faiss: flat, and in two levels for large pools.

Imported only where torch is not: the two libraries bring two OpenMP runtimes, which may lock each
other up in one process.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
T = TypeVar("T")

CELL_SAMPLE = 256
"""Vectors per cell that level 1 is trained on: what faiss takes, as more hardly moves a centroid.
Level 1 then costs the same share at every size."""
NEIGHBOURS = 8
"""Cells, its own among them, in which a vector may find its centroid."""
REFINEMENTS = 4
"""Iterations of Lloyd's algorithm over the borders of the cells."""


class Clustering(NamedTuple):
    """A k-means solution."""

    centroids: Vectors
    """float32[k, dimension]"""
    cluster: npt.NDArray[np.int32]
    """int32[n]: nearest centroid of each vector."""
    distance: npt.NDArray[np.float32]
    """float32[n]: Euclidean distance to it."""

    @property
    def inertia(self) -> float:
        """Sum of squared distances."""
        return float(np.square(self.distance, dtype=np.float64).sum())


def num_clusters(num_rows: int, rows_per_cluster: int, wanted: int | None = None) -> int:
    """`wanted`, or one cluster per `rows_per_cluster` rows; never more than rows, at least 1."""
    aim = wanted or (num_rows + rows_per_cluster // 2) // rows_per_cluster
    return max(1, min(aim, num_rows))


def kmeans(
    vectors: Vectors,
    k: int,
    num_iterations: int,
    seed: int,
    num_threads: int,
    use_gpu: bool = False,
) -> Clustering:
    """Lloyd's algorithm on all vectors, from k seeded random ones: 2·n·k·dimension per iteration.

    Args:
        vectors: float32[n, dimension], n >= k.
        k: number of clusters.
        num_iterations: iterations of Lloyd's algorithm.
        seed: picks the first centroids.
        num_threads: threads of faiss.
        use_gpu: train and assign on the GPU (needs faiss-gpu).

    Returns:
        The solution; clusters that run empty are split off the largest by faiss.
    """
    faiss = _Faiss(num_threads, use_gpu)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    centroids = faiss.train(vectors, k, num_iterations, seed)
    return _clustering(centroids, *faiss.nearest(vectors, centroids))


def two_level_kmeans(
    vectors: Vectors,
    k: int,
    num_iterations: int,
    seed: int,
    num_threads: int,
    use_gpu: bool = False,
) -> Clustering:
    """k-means inside each of about √k cells, then a few iterations across the cells' borders.

    Level 1 cuts the space into ⌊√k⌋ cells, trained on a seeded sample; level 2 runs `kmeans` inside
    each, with clusters in proportion to its vectors. That leaves clusters that end where a cell
    does, so Lloyd's algorithm goes on for `REFINEMENTS` iterations in which a vector may move to
    any centroid of the `NEIGHBOURS` cells around its own, and ends with one such assignment. An
    iteration costs 2·n·√k·dimension, or `NEIGHBOURS` times that: n^1.5 in all where k grows with n.

    Arguments and result are those of `kmeans`; a cluster may be empty where vectors are equal.
    """
    faiss = _Faiss(num_threads, use_gpu)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    cells = faiss.train(vectors, math.isqrt(k), num_iterations, seed, CELL_SAMPLE)
    rows = _groups(faiss.nearest(vectors, cells)[1], len(cells))
    cells, rows = cells[[len(r) > 0 for r in rows]], [r for r in rows if len(r)]
    share = shares(np.array([len(r) for r in rows]), k)

    def train(cell: int) -> Vectors:
        return faiss.train(vectors[rows[cell]], int(share[cell]), num_iterations, seed)

    centroids = np.concatenate(faiss.each(train, len(cells)))
    owned: list[Ints] = np.split(np.arange(k), np.cumsum(share)[:-1])
    near: list[list[int]] = _neighbours(cells).tolist()
    reach = [np.concatenate([owned[cell] for cell in around]) for around in near]

    def assign() -> tuple[npt.NDArray[np.float32], Ints]:
        squared, nearest = np.empty(len(vectors), np.float32), np.empty(len(vectors), np.int64)

        def one(cell: int) -> None:
            apart, place = faiss.nearest(vectors[rows[cell]], centroids[reach[cell]])
            squared[rows[cell]], nearest[rows[cell]] = apart, reach[cell][place]

        faiss.each(one, len(cells))
        return squared, nearest

    for _ in range(REFINEMENTS):
        centroids = means(vectors, assign()[1], centroids)
    return _clustering(centroids, *assign())


def shares(sizes: Ints, k: int) -> Ints:
    """Clusters for each cell: one, and the rest in proportion to its further vectors.

    Args:
        sizes: int64[cells], vectors of each cell, at least 1.
        k: clusters in all, between the number of cells and of vectors.

    Returns:
        int64[cells] of sum k, each between 1 and its size; largest remainders, the first of equals.
    """
    further, left = sizes - 1, k - len(sizes)
    whole, rest = np.divmod(left * further, max(1, int(further.sum())))
    whole[np.argsort(-rest, kind="stable")[: left - int(whole.sum())]] += 1
    return whole + 1


def means(vectors: Vectors, cluster: Ints, before: Vectors) -> Vectors:
    """float32[k, dimension]: mean of each cluster; one without vectors keeps what it had before."""
    after = before.copy()
    for index, rows in enumerate(_groups(cluster, len(before))):
        if len(rows):
            after[index] = vectors[rows].mean(axis=0)
    return after


def _groups(label: Ints, count: int) -> list[Ints]:
    """Indices of each label below `count`, ascending."""
    ends = np.cumsum(np.bincount(label, minlength=count))
    return np.split(np.argsort(label, kind="stable"), ends[:-1])


def _neighbours(cells: Vectors) -> Ints:
    """int64[cells, at most `NEIGHBOURS`]: each cell itself, then the nearest others."""
    norm = np.square(cells).sum(axis=1)
    apart = norm[:, None] + norm - 2 * cells @ cells.T
    np.fill_diagonal(apart, -np.inf)  # itself first, also among cells that are equal
    return np.argsort(apart, axis=1, kind="stable")[:, :NEIGHBOURS]


def _clustering(centroids: Vectors, squared: npt.NDArray[np.float32], nearest: Ints) -> Clustering:
    # Rounding may leave a vector that is its own centroid at a tiny negative squared distance.
    return Clustering(centroids, nearest.astype(np.int32), np.sqrt(np.maximum(squared, 0.0)))


class _Faiss:
    """The two things asked of faiss, on the threads of the CPU or on the first GPU it sees."""

    def __init__(self, num_threads: int, use_gpu: bool) -> None:
        self.faiss = _faiss()
        self.faiss.omp_set_num_threads(num_threads)
        self.num_threads = num_threads
        # Scratch memory of the GPU, 1.5 GB: shared by all indexes.
        self.gpu = self.faiss.StandardGpuResources() if use_gpu else None

    def train(
        self,
        vectors: Vectors,
        k: int,
        num_iterations: int,
        seed: int,
        per_centroid: int | None = None,
    ) -> Vectors:
        """float32[k, dimension] centroids of all vectors, or of `per_centroid` times k of them."""
        settings = self.faiss.ClusteringParameters()
        settings.niter, settings.seed = num_iterations, seed
        settings.min_points_per_centroid = 1
        # faiss would train on 256 vectors per centroid; all of them is what k-means means.
        settings.max_points_per_centroid = per_centroid or len(vectors)
        training = self.faiss.Clustering(vectors.shape[1], k, settings)
        training.train(vectors, self._index(vectors.shape[1]))
        return self.faiss.vector_to_array(training.centroids).reshape(k, vectors.shape[1])

    def nearest(self, vectors: Vectors, centroids: Vectors) -> tuple[npt.NDArray[np.float32], Ints]:
        """Squared distance to the nearest centroid, float32[n], and its index, int64[n]."""
        index = self._index(vectors.shape[1])
        index.add(centroids)
        squared, nearest = index.search(vectors, 1)
        return squared[:, 0], nearest[:, 0]

    def each(self, work: Callable[[int], T], count: int) -> list[T]:
        """``work(0)`` to ``work(count - 1)``: a thread for each on the CPU, one by one on the GPU.

        Small problems gain nothing from more threads inside each.
        """
        workers, inside = (self.num_threads, 1) if self.gpu is None else (1, self.num_threads)
        setup = self.faiss.omp_set_num_threads  # counts for the thread that calls it
        with ThreadPoolExecutor(workers, initializer=setup, initargs=(inside,)) as pool:
            return list(pool.map(work, range(count)))

    def _index(self, dimension: int) -> Any:
        index = self.faiss.IndexFlatL2(dimension)
        return index if self.gpu is None else self.faiss.index_cpu_to_gpu(self.gpu, 0, index)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise ModuleNotFoundError(
            "faiss is not installed. Install it with pip install 'poolscore[cpu]' or "
            "'poolscore[gpu]'."
        ) from None
    return faiss
