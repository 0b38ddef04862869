"""k-means against scikit-learn's, and in two levels against flat: time, and inertia beside it.

Run as ``python -m benchmarks.kmeans [--rows 200000] [--million]``. Both libraries get the same
vectors, k, threads and 20 iterations; scikit-learn is left at its greedy k-means++ and runs
`tol=0`, so that it does not stop early. Made vectors have the spectrum of real sentence
embeddings; the pool's own (of each row's first 32 tokens) are embedded once, in another process
(faiss must not meet torch), and kept under ``benchmarks/.cache``.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from benchmarks.harness import (
    REPOSITORY,
    Row,
    alternate,
    limit,
    peak_memory_mb,
    pool_path,
    publish,
    ratio,
    timed,
)
from engine.maths import kmeans
from engine.maths.kmeans import Clustering, Vectors
from engine.step import EMBED

CACHE = REPOSITORY / "benchmarks" / ".cache"
DIMENSION, ITERATIONS, SEED = 384, 20, 42
THREADS = len(os.sched_getaffinity(0))


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000, help="made vectors (200,000)")
    parser.add_argument("--million", action="store_true", help="also 1M vectors in 20,000 clusters")
    options = parser.parse_args()
    pool = pool_embeddings()
    vectors = embedding_like(options.rows)
    rows = [
        *against_sklearn("the pool's embeddings", pool, len(pool) // 50, 4.0, None),
        # One run of scikit-learn takes minutes here: one pair, and no run before it.
        *against_sklearn("made vectors", vectors, options.rows // 100, 8.0, 1),
        two_level_against_flat(vectors[::2], options.rows // 200),
    ]
    del vectors
    if options.million:
        rows.append(million())
    publish("kmeans", rows)


def against_sklearn(
    what: str, vectors: Vectors, k: int, at_least: float, pairs: int | None
) -> list[Row]:
    """Flat k-means: how many times faster, and how much worse or better its inertia is."""
    from sklearn.cluster import KMeans  # pyright: ignore[reportMissingTypeStubs]

    ours: list[float] = []
    theirs: list[float] = []

    def run_ours() -> None:
        ours.append(kmeans.kmeans(vectors, k, ITERATIONS, SEED, THREADS).inertia)

    def run_theirs() -> None:
        fit = KMeans(k, n_init=1, max_iter=ITERATIONS, tol=0, random_state=SEED).fit(vectors)
        theirs.append(float(fit.inertia_))  # pyright: ignore[reportArgumentType]

    timings = alternate(run_ours, run_theirs, pairs, warm_up=pairs is None)
    size = f"{len(vectors):,} {what}, k = {k:,}"
    work = len(vectors) * ITERATIONS
    excess = ours[-1] / theirs[-1] - 1
    return [
        ratio(f"k-means, {size}", "scikit-learn", at_least, timings, work, "row iterations"),
        limit(
            f"its inertia above scikit-learn's, {size}", "≤ 1%", f"{excess:+.2%}", excess <= 0.01
        ),
    ]


def two_level_against_flat(vectors: Vectors, k: int) -> Row:
    """What two levels gain in time and lose in inertia; reported."""
    found: dict[str, Clustering] = {}

    def run(name: str) -> None:
        way = kmeans.two_level_kmeans if name == "two" else kmeans.kmeans
        found[name] = way(vectors, k, ITERATIONS, SEED, THREADS)

    two, flat = timed(lambda: run("two")).seconds, timed(lambda: run("flat")).seconds
    loss = found["two"].inertia / found["flat"].inertia - 1
    return limit(
        f"two levels against flat, {len(vectors):,} made vectors, k = {k:,}",
        "",
        f"{flat / two:.1f}× ({two:,.0f} s against {flat:,.0f} s), inertia {loss:+.2%}",
        None,
        two_level_seconds=two,
        flat_seconds=flat,
        inertia_loss=loss,
    )


def million() -> Row:
    """A million rows in two levels, in a process of its own for its peak memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        seconds, inertia, peak_mb = process.submit(_million).result()
    return limit(
        "two levels, 1,000,000 made vectors, k = 20,000",
        "≤ 15 min",
        f"{seconds / 60:.1f} min, {peak_mb / 1024:.1f} GB at most",
        seconds <= 15 * 60,
        seconds=seconds,
        inertia=inertia,
        peak_mb=peak_mb,
    )


def _million() -> tuple[float, float, float]:
    vectors = embedding_like(1_000_000)
    start = time.perf_counter()
    found = kmeans.two_level_kmeans(vectors, 20_000, ITERATIONS, SEED, THREADS)
    return time.perf_counter() - start, found.inertia, peak_memory_mb()


def embedding_like(num_rows: int, num_topics: int = 5_000, seed: int = 0) -> Vectors:
    """float32[num_rows, 384] of length 1: overlapping topics, as sentence embeddings have them.

    The variance along direction i falls as (i + 4)^-0.75, which gives 159 effective dimensions
    (all-MiniLM-L6-v2 on databricks-dolly-15k: 136); 36% of it is between topics, whose sizes fall
    with the root of their rank; and all vectors lean one way by 0.2, as those embeddings do. Made
    in blocks, so that the peak is the result's own size.
    """
    rng = np.random.default_rng(seed)
    spectrum = (np.arange(DIMENSION) + 4.0) ** -0.75
    scale = np.sqrt(spectrum / spectrum.sum()).astype(np.float32)
    topics = rng.standard_normal((num_topics, DIMENSION), dtype=np.float32) * scale * 0.6
    weight = 1 / np.sqrt(np.arange(1, num_topics + 1))
    topic: npt.NDArray[np.int64] = rng.choice(num_topics, num_rows, p=weight / weight.sum())
    vectors = np.empty((num_rows, DIMENSION), dtype=np.float32)
    for start in range(0, num_rows, 50_000):
        block = vectors[start : start + 50_000]
        rng.standard_normal(out=block, dtype=np.float32)
        block *= scale * np.float32(0.8)
        block += topics[topic[start : start + 50_000]]
        block[:, 0] += 0.2
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return vectors


def pool_embeddings() -> Vectors:
    """float32[rows, 384] of the pool by the engine's own embedder; from the cache the next time."""
    pool = pool_path()
    with pool.open("rb") as file:
        cached = CACHE / f"embeddings-32-{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}.npy"
    if not cached.is_file():
        run_dir = cached.with_suffix(".run")
        command = [sys.executable, "-m", "engine", "run", str(pool)]
        command += ["--run-dir", str(run_dir), "--until", "embed", "--set", "embed.max_tokens=32"]
        subprocess.run(command, check=True, cwd=REPOSITORY)
        np.save(cached, _read_embeddings(run_dir / EMBED))
    return np.load(cached)


def _read_embeddings(folder: Path) -> Vectors:
    columns = (
        pq.read_table(shard, columns=["embedding"])["embedding"].combine_chunks()
        for shard in sorted(folder.glob("part-*.parquet"))
    )
    parts = [np.asarray(c.flatten()).reshape(-1, c.type.list_size) for c in columns]
    return np.concatenate(parts).astype(np.float32)


if __name__ == "__main__":
    main()
