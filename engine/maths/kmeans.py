"""k-means over sentence embeddings, by faiss.

Imported only where torch is not: the two libraries bring two OpenMP runtimes, which may lock each
other up in one process.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]


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
    """Lloyd's algorithm on all vectors, from k seeded random ones.

    Args:
        vectors: float32[n, dimension], n >= k.
        k: number of clusters.
        num_iterations: iterations of Lloyd's algorithm.
        seed: picks the first centroids.
        num_threads: OpenMP threads of faiss.
        use_gpu: train and assign on the GPU (needs faiss-gpu).

    Returns:
        The solution; clusters that run empty are split off the largest by faiss.
    """
    faiss = _faiss()
    faiss.omp_set_num_threads(num_threads)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    training = faiss.Kmeans(
        vectors.shape[1],
        k,
        niter=num_iterations,
        seed=seed,
        gpu=use_gpu,
        # faiss would train on 256 vectors per centroid; all of them is what k-means means.
        max_points_per_centroid=len(vectors),
        min_points_per_centroid=1,
    )
    training.train(vectors)
    squared, nearest = training.index.search(vectors, 1)
    # Rounding may leave a vector that is its own centroid at a tiny negative squared distance.
    distance = np.sqrt(np.maximum(squared[:, 0], 0.0))
    return Clustering(
        np.asarray(training.centroids, dtype=np.float32).reshape(k, vectors.shape[1]),
        nearest[:, 0].astype(np.int32),
        distance.astype(np.float32),
    )


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise ModuleNotFoundError(
            "faiss is not installed. Install it with pip install 'poolscore[cpu]' or "
            "'poolscore[gpu]'."
        ) from None
    return faiss
