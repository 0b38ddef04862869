"""3 cluster: k-means over the embeddings of the rows that may be scored.

Reads ``2-embed``; writes, shard by shard, `id`, `cluster` and `distance` (`schema.CLUSTERS`), null
for flagged rows, and the centroids in ``centroids.parquet``. k-means sees all rows at once, so this
stage is one process, and one that never imports torch: see `maths.kmeans`.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from engine import heartbeat, schema
from engine.config import Config
from engine.errors import ConfigError
from engine.failures import for_people
from engine.maths import kmeans
from engine.nodes import Nodes
from engine.parallel import Task, peak_memory_bytes
from engine.progress import Progress
from engine.rundir import RunDir
from engine.step import CENTROIDS_FILE, EMBED, Outcome, Step

NAME = "cluster"
VERSION = 2
CPU_FAISS = (
    "k-means ran on the CPU, beside a GPU: the faiss that is installed is its CPU build. Install "
    "'.[gpu]' instead of '.[cpu]', and remove faiss-cpu first."
)
"""Said where it took long: of a pool that is clustered in two levels."""


def settings(config: Config, run: RunDir, epoch: int) -> dict[str, Any]:
    """Every setting of the clustering."""
    return config.clusters.model_dump(mode="json")


def run(step: Step, nodes: Nodes) -> Outcome:
    """Cluster all embeddings in a process of its own."""
    options = nodes.kmeans_options
    task = ray.remote(cluster_shards).options(**options, max_retries=0)
    progress = Progress(step.label, 0, "rows")
    start = partial(task.remote, step, options["num_cpus"], bool(nodes.gpus_per_worker))
    with (
        for_people(step),
        progress.ticking(f"k-means, {step.config.clusters.num_iterations} rounds …"),
    ):
        return Task(start).result()


def cluster_shards(step: Step, num_threads: int, use_gpu: bool) -> Outcome:
    """Read all embeddings, cluster them, write every shard and the centroids."""
    working = step.run.path / step.folder / heartbeat.FOLDER / f"k-means{heartbeat.WORK}"
    with heartbeat.at_work(working), heartbeat.while_busy():
        return _cluster_shards(step, num_threads, use_gpu)


def _cluster_shards(step: Step, num_threads: int, use_gpu: bool) -> Outcome:
    assert "torch" not in sys.modules, "faiss and torch bring two OpenMP runtimes"
    config = step.config.clusters
    vectors = _embeddings(step)
    if len(vectors) == 0:
        raise ConfigError(
            "no row of the pool can be scored: every row is flagged. See the flags in 1-pool, and "
            "docs/formats.md for what they mean."
        )
    k = kmeans.num_clusters(len(vectors), config.rows_per_cluster, config.num)
    two_level = len(vectors) >= config.two_level_from
    cluster = kmeans.two_level_kmeans if two_level else kmeans.kmeans
    found = cluster(vectors, k, config.num_iterations, config.seed, num_threads, use_gpu)
    num_rows = _write_shards(step, found)
    sizes = np.bincount(found.cluster, minlength=k)
    centroid = pa.FixedSizeListArray.from_arrays(found.centroids.ravel(), vectors.shape[1])
    table = pa.table(
        [pa.array(range(k), pa.int32()), pa.array(sizes, pa.int64()), centroid],
        schema=schema.centroids(vectors.shape[1]),
    )
    step.commit(CENTROIDS_FILE, table)
    return Outcome(
        rows_in=num_rows,
        rows_out=num_rows,
        peak_memory_bytes=peak_memory_bytes(),
        details={
            "clusters": k,
            "levels": 2 if two_level else 1,
            "clustered_rows": len(vectors),
            "inertia": found.inertia,
            "smallest_cluster": int(sizes.min()),
            "largest_cluster": int(sizes.max()),
        },
        warnings=[CPU_FAISS] if use_gpu and two_level and not kmeans.has_gpu_faiss() else [],
    )


def _embeddings(step: Step) -> np.ndarray:
    """float32[rows with an embedding, dimension] of all shards, in order."""
    shards = step.shards()
    num_rows = sum(step.read(EMBED, shard, ["id"]).num_rows for shard in shards)
    dimension = step.read(EMBED, shards[0], ["embedding"]).schema.field(0).type.list_size
    # Filled shard by shard: at this size there is no room for a list of parts beside their sum.
    # The flagged rows' places, left over at the end, are never touched and so take no memory.
    vectors = np.empty((num_rows, dimension), dtype=np.float32)
    end = 0
    for shard in shards:
        column = step.read(EMBED, shard, ["embedding"])["embedding"].combine_chunks()
        flat = np.asarray(column.flatten(), dtype=np.float32)  # leaves null lists out
        start, end = end, end + len(flat) // dimension
        vectors[start:end] = flat.reshape(-1, dimension)
    return vectors[:end]


def _write_shards(step: Step, found: kmeans.Clustering) -> int:
    """Deal the results back to the rows they belong to; flagged rows get null."""
    start = num_rows = 0
    for shard in step.shards():
        embedded = step.read(EMBED, shard)
        valid = np.asarray(embedded["embedding"].is_valid())
        part = slice(start, start + int(valid.sum()))
        cluster = np.zeros(len(valid), dtype=np.int32)
        distance = np.zeros(len(valid), dtype=np.float32)
        cluster[valid], distance[valid] = found.cluster[part], found.distance[part]
        table = pa.table(
            [
                embedded["id"],
                pa.array(cluster, mask=~valid),
                pa.array(distance, mask=~valid),
            ],
            schema=schema.CLUSTERS,
        )
        step.commit(shard, table)
        start, num_rows = part.stop, num_rows + len(valid)
    return num_rows
