"""4 tokens against the tokenizer library alone, on the same cores.

The engine's way is one process per core, each tokenising whole shards in one thread; the library's
is `encode_batch` over all texts in one process, with a thread per core. Loading and start-up are
left out of both, and so is writing the result. Both arms use every core that this process may use.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import harness, runs
from engine import models, schema
from engine.stages import tokens
from engine.step import POOL, Step
from engine.text import render_alpaca

CORES = len(os.sched_getaffinity(0))

_worker: tokens.TokenWorker


def main() -> None:
    """Make the pool's shards in a temporary run, then time both arms over all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, help="timed pairs; fewer for a quick trial")
    parser.add_argument("--shard-rows", type=int, default=1024, help="rows per shard")
    options = parser.parse_args()
    models.use_tokenizer_threads(CORES)
    with tempfile.TemporaryDirectory() as folder:
        step = runs.with_pool(Path(folder), options.shard_rows)["tokens"]
        texts = _texts(step)
        backend: Any = models.load_tokenizer(_source(step)).backend_tokenizer
        spawn = get_context("spawn")
        with ProcessPoolExecutor(CORES, spawn, initializer=_load, initargs=(step,)) as workers:
            timings = harness.alternate(
                lambda: list(workers.map(_tokenise, [step] * len(step.shards()), step.shards())),
                lambda: backend.encode_batch(texts),
                options.pairs,
            )
    name = f"encode_batch with {CORES} threads"
    row = harness.ratio("4 tokens, one process a core", name, 0.6, timings, len(texts), "rows")
    harness.publish("tokenise", [row])


def _source(step: Step) -> models.ModelSource:
    return models.proxy_source(step.config)


def _texts(step: Step) -> list[str]:
    """The texts that the stage tokenises, in order."""
    end = str(models.load_tokenizer(_source(step)).eos_token)
    texts: list[str] = []
    for shard in step.shards():
        rows = step.read(POOL, shard, ["turns", "flag"]).to_pylist()
        conversations = [
            [tokens.as_turn(turn) for turn in row["turns"]]
            for row in rows
            if row["flag"] == schema.OK
        ]
        texts += [render_alpaca(turns, end).text for turns in conversations]
    return texts


def _load(step: Step) -> None:
    """Once per process: what an actor has around it, and the worker."""
    global _worker
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    proxy = step.config.proxy
    _worker = tokens.TokenWorker(_source(step), proxy.template, proxy.max_tokens)


def _tokenise(step: Step, shard: str) -> int:
    """One shard, its reading and its table included; the table stays in the process."""
    return _worker(step, _worker.read(step, shard)).table.num_rows


if __name__ == "__main__":
    main()
