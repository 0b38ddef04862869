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

PROBES = 8
"""Cells of centroids in which a vector looks for its nearest one."""
CELL_ITERATIONS = 10
"""Iterations of k-means over the centroids, which makes the cells."""
BLOCK = 16_384
"""Vectors that are copied at a time."""


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


def num_flops(
    num_rows: int, dimension: int, k: int, num_iterations: int, two_level: bool = False
) -> float:
    """FLOPs of `kmeans` or `two_level_kmeans` and their last assignment; multiplications count."""
    if not two_level:
        return 2.0 * num_rows * k * dimension * (num_iterations + 1)
    cells = math.isqrt(k)
    making = k * cells * CELL_ITERATIONS
    probing = num_rows * (cells + min(PROBES, cells) * k / cells)
    return 2.0 * dimension * (making + probing) * (num_iterations + 1)


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
        use_gpu: train and assign on the GPU; without faiss-gpu it is the CPU all the same.

    Returns:
        The solution; clusters that run empty are split off the largest by faiss.
    """
    faiss = _Faiss(num_threads, use_gpu)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    centroids = faiss.train(vectors, k, num_iterations, seed)
    squared, nearest = faiss.nearest(vectors, centroids)
    return _clustering(centroids, squared[:, 0], nearest[:, 0])


def two_level_kmeans(
    vectors: Vectors,
    k: int,
    num_iterations: int,
    seed: int,
    num_threads: int,
    use_gpu: bool = False,
) -> Clustering:
    """Lloyd's algorithm in which a vector looks for its centroid in the nearest cells only.

    In each iteration the centroids themselves are cut into ⌊√k⌋ cells by k-means. A vector is then
    compared with the cells, with the centroids of the `PROBES` nearest ones, and with the centroid
    it had, so that the inertia never grows. An iteration costs about 2·n·√k·dimension·(1 +
    `PROBES`): n^1.5 where k grows with n, against the square of the flat way.

    Arguments and result are those of `kmeans`; a cluster may be empty where vectors are equal.
    """
    faiss = _Faiss(num_threads, use_gpu)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    first = np.random.default_rng(seed).choice(len(vectors), k, replace=False)
    centroids = vectors[np.sort(first)]
    squared, nearest = _probed(faiss, vectors, centroids, None, seed)
    for _ in range(num_iterations):
        centroids = means(vectors, nearest, centroids)
        squared, nearest = _probed(faiss, vectors, centroids, nearest, seed)
    return _clustering(centroids, squared, nearest)


def _probed(
    faiss: _Faiss, vectors: Vectors, centroids: Vectors, before: Ints | None, seed: int
) -> tuple[npt.NDArray[np.float32], Ints]:
    """Squared distance to the nearest centroid that is looked at, float32[n], and which, int64[n].

    Args:
        faiss: does the work.
        vectors: float32[n, dimension].
        centroids: float32[k, dimension].
        before: int64[n], a centroid of each vector to look at in any case.
        seed: of the k-means that makes the cells.
    """
    cells = faiss.train(centroids, math.isqrt(len(centroids)), CELL_ITERATIONS, seed)
    owned = _groups(faiss.nearest(centroids, cells)[1][:, 0], len(cells))
    # Equal centroids leave cells without any, and a vector must not look into those alone.
    cells, owned = cells[[len(own) > 0 for own in owned]], [own for own in owned if len(own)]
    num_cells, probes = len(cells), min(PROBES, len(cells))
    # Places in the tables [n, probes] below, by the cell that is looked into.
    wanted = _groups(faiss.nearest(vectors, cells, probes)[1].ravel(), num_cells)
    squared = np.full((len(vectors), probes + 1), np.inf, dtype=np.float32)
    nearest = np.zeros((len(vectors), probes + 1), dtype=np.int64)

    def look_into(cell: int) -> None:
        for start in range(0, len(wanted[cell]), BLOCK):
            row, probe = np.divmod(wanted[cell][start : start + BLOCK], probes)
            apart, place = faiss.nearest(vectors[row], centroids[owned[cell]])
            squared[row, probe], nearest[row, probe] = apart[:, 0], owned[cell][place[:, 0]]

    def look_back(block: int) -> None:
        rows = slice(block * BLOCK, (block + 1) * BLOCK)
        apart = vectors[rows] - centroids[nearest[rows, -1]]
        squared[rows, -1] = np.einsum("ij,ij->i", apart, apart)

    faiss.each(look_into, num_cells)
    if before is not None:
        nearest[:, -1] = before
        faiss.each(look_back, math.ceil(len(vectors) / BLOCK))
    row, best = np.arange(len(vectors)), squared.argmin(axis=1)
    return squared[row, best], nearest[row, best]


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
        self.gpu = self.faiss.StandardGpuResources() if use_gpu and has_gpu_faiss() else None

    def train(self, vectors: Vectors, k: int, num_iterations: int, seed: int) -> Vectors:
        """float32[k, dimension] centroids."""
        settings = self.faiss.ClusteringParameters()
        settings.niter, settings.seed = num_iterations, seed
        settings.min_points_per_centroid = 1
        # faiss would train on 256 vectors per centroid; all of them is what k-means means.
        settings.max_points_per_centroid = len(vectors)
        training = self.faiss.Clustering(vectors.shape[1], k, settings)
        training.train(vectors, self._index(vectors.shape[1]))
        return self.faiss.vector_to_array(training.centroids).reshape(k, vectors.shape[1])

    def nearest(
        self, vectors: Vectors, centroids: Vectors, count: int = 1
    ) -> tuple[npt.NDArray[np.float32], Ints]:
        """Squared distances to the `count` nearest centroids, float32[n, count], and which ones."""
        index = self._index(vectors.shape[1])
        index.add(centroids)
        squared, nearest = index.search(vectors, count)
        return squared, nearest

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


def has_gpu_faiss() -> bool:
    """Whether the faiss that is installed here was built for GPUs, and sees one."""
    faiss = _faiss()
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise ModuleNotFoundError(
            "faiss is not installed. In poolscore's source folder: pip install -c "
            "constraints.txt '.[cpu]', or '.[gpu]' on a CUDA machine."
        ) from None
    return faiss
