"""k-means, in a process of its own: faiss and torch must not meet (two OpenMP runtimes)."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from engine.maths import kmeans
from engine.maths.kmeans import Clustering

WAYS = pytest.mark.parametrize("way", [kmeans.kmeans, kmeans.two_level_kmeans])
CENTRES = np.array([[0, 0, 0], [10, 0, 0], [0, 10, 0], [0, 0, 10]], dtype=np.float32)


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    """A fresh interpreter, which imports `kmeans` and with it faiss, and never torch."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as executor:
        yield executor


def cluster(
    process: ProcessPoolExecutor,
    vectors: np.ndarray,
    k: int,
    num_iterations: int = 20,
    seed: int = 0,
    way: Callable[..., Clustering] = kmeans.kmeans,
    num_threads: int = 1,
    use_gpu: bool = False,
) -> Clustering:
    arguments = (vectors, k, num_iterations, seed, num_threads, use_gpu)
    return process.submit(way, *arguments).result(timeout=60)


def blobs(rows_per_blob: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    label = rng.permutation(np.repeat(np.arange(4), rows_per_blob))
    noise = rng.normal(scale=0.3, size=(len(label), 3))
    return (CENTRES[label] + noise).astype(np.float32), label


@WAYS
def test_without_a_gpu_build_of_faiss_the_cpu_does_it(
    process: ProcessPoolExecutor, way: Callable[..., Clustering]
) -> None:
    if process.submit(kmeans.has_gpu_faiss).result(timeout=60):
        pytest.skip("this faiss has a GPU")
    vectors, _ = blobs()
    asked, plain = (cluster(process, vectors, 4, way=way, use_gpu=gpu) for gpu in (True, False))
    assert np.array_equal(asked.cluster, plain.cluster)
    assert np.array_equal(asked.centroids, plain.centroids)


def test_separated_blobs_are_found(process: ProcessPoolExecutor) -> None:
    vectors, label = blobs()
    # Lloyd's algorithm may end in a poor optimum from one start, so the best of a few counts.
    found = min((cluster(process, vectors, 4, seed=seed) for seed in range(20)), key=inertia)
    pairs = set(zip(label.tolist(), found.cluster.tolist(), strict=True))
    assert len(pairs) == 4  # one cluster per blob, one blob per cluster
    assert {a for a, _ in pairs} == {b for _, b in pairs} == {0, 1, 2, 3}
    for blob, index in pairs:
        np.testing.assert_allclose(
            found.centroids[index], vectors[label == blob].mean(axis=0), atol=1e-5
        )


def inertia(found: Clustering) -> float:
    return found.inertia


def test_every_vector_goes_to_its_nearest_centroid(process: ProcessPoolExecutor) -> None:
    vectors = np.random.default_rng(1).normal(size=(300, 8)).astype(np.float32)
    found = cluster(process, vectors, 12)
    apart = np.linalg.norm(
        vectors[:, None].astype(np.float64) - found.centroids[None].astype(np.float64), axis=2
    )
    assert (found.cluster == apart.argmin(axis=1)).all()
    np.testing.assert_allclose(found.distance, apart.min(axis=1), rtol=1e-4)
    assert found.inertia == pytest.approx((apart.min(axis=1) ** 2).sum(), rel=1e-5)
    assert found.inertia == pytest.approx(
        sum(float(d) ** 2 for d in found.distance.tolist()), rel=1e-12
    )


@WAYS
def test_all_vectors_take_part_in_training(
    process: ProcessPoolExecutor, way: Callable[..., Clustering]
) -> None:
    # One centroid is the mean of all rows, also past the 256 per centroid at which faiss samples.
    vectors = np.random.default_rng(2).normal(size=(2000, 4)).astype(np.float32)
    found = cluster(process, vectors, 1, way=way)
    np.testing.assert_allclose(
        found.centroids[0], vectors.mean(axis=0, dtype=np.float64), atol=1e-5
    )


def test_the_seed_decides_alone(process: ProcessPoolExecutor) -> None:
    vectors = np.random.default_rng(4).normal(size=(400, 8)).astype(np.float32)
    first, second = (cluster(process, vectors, 10, seed=7) for _ in range(2))
    np.testing.assert_array_equal(first.centroids, second.centroids)
    np.testing.assert_array_equal(first.cluster, second.cluster)
    np.testing.assert_array_equal(first.distance, second.distance)
    assert (cluster(process, vectors, 10, seed=8).cluster != first.cluster).any()


@WAYS
def test_as_many_clusters_as_vectors(
    process: ProcessPoolExecutor, way: Callable[..., Clustering]
) -> None:
    found = cluster(process, CENTRES, 4, way=way)
    assert sorted(found.cluster.tolist()) == [0, 1, 2, 3]
    np.testing.assert_allclose(found.distance, 0.0, atol=1e-3)
    assert found.inertia == pytest.approx(0.0, abs=1e-5)


def topics(num_rows: int = 4000) -> np.ndarray:
    """Vectors around 60 overlapping centres."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(60, 16))
    return (centres[rng.integers(60, size=num_rows)] + rng.normal(size=(num_rows, 16))).astype("f4")


def test_two_levels_lose_little(process: ProcessPoolExecutor) -> None:
    flat = cluster(process, topics(), 200)
    found = cluster(process, topics(), 200, way=kmeans.two_level_kmeans)
    assert found.inertia < 1.03 * flat.inertia
    sizes = np.bincount(found.cluster, minlength=200)
    assert len(sizes) == 200
    assert sizes.min() > 0


def test_two_levels_assign_to_a_centroid_at_the_distance_given(
    process: ProcessPoolExecutor,
) -> None:
    vectors = topics(1000)
    found = cluster(process, vectors, 100, way=kmeans.two_level_kmeans)
    apart = np.linalg.norm(vectors.astype("f8")[:, None] - found.centroids[None], axis=2)
    own = np.take_along_axis(apart, found.cluster[:, None].astype(np.int64), axis=1)[:, 0]
    np.testing.assert_allclose(found.distance, own, rtol=1e-4)
    # 8 of 10 cells are searched, so all but few vectors reach the nearest centroid there is.
    assert (found.cluster == apart.argmin(axis=1)).mean() > 0.99


def test_two_levels_search_every_cell_where_there_are_few(process: ProcessPoolExecutor) -> None:
    vectors = topics(1000)
    found = cluster(process, vectors, 64, way=kmeans.two_level_kmeans)  # 8 cells
    apart = np.linalg.norm(vectors.astype("f8")[:, None] - found.centroids[None], axis=2)
    assert (found.cluster == apart.argmin(axis=1)).all()


def test_the_seed_decides_alone_in_two_levels(process: ProcessPoolExecutor) -> None:
    ways = {"way": kmeans.two_level_kmeans}
    first, second = (cluster(process, topics(1000), 50, seed=7, **ways) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    assert (cluster(process, topics(1000), 50, seed=8, **ways).cluster != first.cluster).any()


def test_every_iteration_in_two_levels_is_an_improvement(process: ProcessPoolExecutor) -> None:
    # 31 cells of which 8 are probed: without the look back at what they had, vectors get lost.
    noise = np.random.default_rng(6).normal(size=(2000, 32)).astype(np.float32)
    found = [
        cluster(process, noise, 1000, num_iterations=n, way=kmeans.two_level_kmeans).inertia
        for n in range(8)
    ]
    assert found == sorted(found, reverse=True)
    assert found[-1] < found[0]


def test_two_threads_find_what_one_finds(process: ProcessPoolExecutor) -> None:
    one, two = (
        cluster(process, topics(1000), 50, way=kmeans.two_level_kmeans, num_threads=n)
        for n in (1, 2)
    )
    assert two.inertia == pytest.approx(one.inertia, rel=1e-3)


@WAYS
@pytest.mark.parametrize("k", [1, 2, 9, 30, 200])
def test_equal_vectors(
    process: ProcessPoolExecutor, way: Callable[..., Clustering], k: int
) -> None:
    vectors = np.tile(np.float32([3, 4]), (200, 1))
    found = cluster(process, vectors, k, way=way)
    assert found.centroids.shape == (k, 2)
    assert set(found.cluster.tolist()) <= set(range(k))
    np.testing.assert_allclose(found.distance, 0.0, atol=1e-2)


def test_means_of_clusters() -> None:
    vectors = np.float32([[1, 2], [9, 9], [3, 6]])
    before = np.float32([[5, 5], [7, 8], [0, 0]])
    after = kmeans.means(vectors, np.array([0, 2, 0]), before)
    assert after.tolist() == [[2, 4], [7, 8], [9, 9]]  # an empty cluster stays where it is


def test_inertia_is_the_sum_of_squared_distances() -> None:
    distance = np.array([3.0, 4.0, 0.5], dtype=np.float32)
    found = Clustering(np.zeros((1, 2), np.float32), np.zeros(3, np.int32), distance)
    assert found.inertia == 25.25


@pytest.mark.parametrize(
    ("num_rows", "rows_per_cluster", "wanted", "expected"),
    [
        (15_011, 50, None, 300),
        (124, 50, None, 2),  # 2.48
        (125, 50, None, 3),  # 2.5 goes up
        (10, 50, None, 1),  # never none
        (1, 50, None, 1),
        (100, 50, 7, 7),
        (5, 50, 7, 5),  # never more than rows
        (5, 1, None, 5),
    ],
)
def test_number_of_clusters(
    num_rows: int, rows_per_cluster: int, wanted: int | None, expected: int
) -> None:
    assert kmeans.num_clusters(num_rows, rows_per_cluster, wanted) == expected


def test_flops_by_hand() -> None:
    assert kmeans.num_flops(1000, 4, 10, 2) == 2 * 1000 * 10 * 4 * 3
    # 3 cells of 10 centroids, made in 10 iterations; all cells are probed. Two iterations and the
    # last assignment.
    two_level = kmeans.num_flops(1000, 4, 10, 2, two_level=True)
    assert two_level == pytest.approx(2 * 4 * (10 * 3 * 10 + 1000 * (3 + 10)) * 3)
