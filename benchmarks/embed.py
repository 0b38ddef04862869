"""2 embed against `SentenceTransformer.encode` over all texts at once with its default batch.

The worker reads shards, builds the texts and makes the table (it is not written); the library gets
the finished texts. Model, threads, device and dtype are the same: the worker's own embedder.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from benchmarks import harness, runs
from engine import models
from engine.resolve import resolve
from engine.stages import embed
from engine.step import Step

LIBRARY_BATCH_ROWS = 32


def main() -> None:
    """Time both arms, and the reading and building of texts on their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=256, help="rows to embed, about")
    parser.add_argument("--shard-rows", type=int, default=256, help="rows per shard")
    parser.add_argument("--pairs", type=int, help="timed pairs; fewer for a quick trial")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        step = runs.with_pool(Path(folder), options.shard_rows)["embed"]
        shards = step.shards()[: max(1, options.rows // options.shard_rows)]
        worker = _worker(step, options.device)
        start = time.perf_counter()
        texts = [text for shard in shards for text in worker.read(step, shard).texts]
        micros = (time.perf_counter() - start) / len(texts) * 1e6
        timings = harness.alternate(
            lambda: [worker(step, worker.read(step, shard)) for shard in shards],
            lambda: worker.embedder.encode(
                texts, batch_size=LIBRARY_BATCH_ROWS, show_progress_bar=False
            ),
            options.pairs,
        )
    what = f"2 embed on {options.device}, {worker.batch_rows} rows a batch"
    against = f"encode() of all texts, {LIBRARY_BATCH_ROWS} rows a batch"
    rows = [
        harness.ratio(what, against, 0.95, timings, len(texts), "rows"),
        harness.limit("reading and text building", "", f"{micros:.1f} µs a row", None),
    ]
    harness.publish("embed", rows)


def _worker(step: Step, device: str) -> embed.EmbedWorker:
    config = resolve(step.config.override(resources={"embed_batch_rows": None}), device)
    return embed.EmbedWorker(
        source=models.embedder_source(config),
        dtype=config.embed.dtype,
        device=device,
        max_tokens=config.embed.max_tokens,
        batch_rows=config.resources.embed_batch_rows or LIBRARY_BATCH_ROWS,
        num_threads=len(os.sched_getaffinity(0)),
    )


if __name__ == "__main__":
    main()
