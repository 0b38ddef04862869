"""k-means of the GPU benchmark, in a process of its own: faiss and torch bring two OpenMP runtimes.

Prints one line of JSON: the seconds it took, or why it could not run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from typing import Any

import numpy as np

from engine.maths.kmeans import Vectors, kmeans


def main() -> None:
    """Cluster random unit vectors once."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("rows", "dimension", "clusters", "iterations"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--cpu", action="store_true", help="faiss on the CPU, to try this script")
    print(json.dumps(measure(parser.parse_args())))


def measure(sizes: argparse.Namespace) -> dict[str, Any]:
    """Seconds of training and of the last assignment, from vectors in memory."""
    reason = None if sizes.cpu else why_not()
    if reason:
        return {"skipped": reason}
    vectors = unit_vectors(sizes.rows, sizes.dimension)
    threads = len(os.sched_getaffinity(0))
    start = time.perf_counter()
    found = kmeans(vectors, sizes.clusters, sizes.iterations, 0, threads, use_gpu=not sizes.cpu)
    return {"seconds": time.perf_counter() - start, "inertia": found.inertia}


def why_not() -> str | None:
    """Why faiss cannot use a GPU here; None where it can."""
    if importlib.util.find_spec("faiss") is None:
        return "faiss is not installed"
    import faiss

    if not hasattr(faiss, "StandardGpuResources"):
        return "faiss-cpu is installed, not faiss-gpu"
    return None if faiss.get_num_gpus() else "faiss-gpu sees no GPU"


def unit_vectors(num_rows: int, dimension: int) -> Vectors:
    """float32[num_rows, dimension], of length 1 as the embedder's are."""
    drawn = np.random.default_rng(0).standard_normal((num_rows, dimension), dtype=np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
