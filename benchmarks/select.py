"""How stages 7 and 8 grow with the pool: score and select over run directories made up for it.

``python -m benchmarks.select`` makes a run of 1M and one of 10M rows in a temporary folder (3 GB
for the larger), runs both stages in a fresh process each, and removes it again. With fewer rows:
``--rows 10000 100000``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import runs
from benchmarks.harness import REPOSITORY, Row, limit, peak_memory_mb, publish
from engine import schema
from engine.config import Config
from engine.rundir import RunDir, make_root
from engine.step import CLUSTER, PERPLEXITY, POOL, SCORE, SELECT, TOKENS, Step, proxy_folder
from engine.threads import in_order

SHARD_ROWS, CLUSTER_ROWS = 4096, 50
FLAGGED, HELD_OUT = 0.02, 0.01
AIMS = {1_000_000: (10, 1500), 10_000_000: (120, 4000)}
"""Rows: seconds of both stages together, peak MB of either."""
AIM_GROWTH = 1.1
"""Seconds may grow by this much per factor of rows."""


def main() -> None:
    """Measure every size and publish."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, nargs="+", default=list(AIMS), help="pool sizes")
    options.add_argument("--folder", type=Path, help="where runs are made (needs 3 GB)")
    sizes = sorted(options.parse_args().rows)
    folder = options.parse_args().folder
    story = {size: _measure(size, folder) for size in sizes}
    rows = [row for size in sizes for row in _rows(size, story[size])]
    if len(sizes) > 1:
        growth = story[sizes[-1]]["seconds"] / story[sizes[0]]["seconds"]
        aim = AIM_GROWTH * sizes[-1] / sizes[0]
        what = f"growth from {sizes[0]:,} to {sizes[-1]:,} rows"
        rows.append(limit(what, f"≤ {aim:g}×", f"{growth:.1f}×", growth <= aim))
    publish("select", rows)


def _rows(size: int, told: dict[str, Any]) -> list[Row]:
    aim_seconds, aim_mb = AIMS.get(size, (None, None))
    seconds, peak = told["seconds"], told["peak_mb"]
    cpu = told["score"]["cpu_seconds"] + told["select"]["cpu_seconds"]
    parts = f"score {told['score']['seconds']:.1f}, select {told['select']['seconds']:.1f}"
    return [
        limit(
            f"score and select, {size:,} rows",
            f"≤ {aim_seconds} s" if aim_seconds else "",
            f"{seconds:.1f} s ({parts}; CPU {cpu:.1f})",
            seconds <= aim_seconds if aim_seconds else None,
            **told,
        ),
        limit(
            f"peak memory, {size:,} rows",
            f"≤ {aim_mb:,} MB" if aim_mb else "",
            f"{peak:,.0f} MB",
            peak <= aim_mb if aim_mb else None,
        ),
    ]


def _measure(size: int, folder: Path | None) -> dict[str, Any]:
    """Seconds and peak memory of both stages, each in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as run:
        told = {part: _in_process(part, run, size) for part in ("make", "score", "select")}
    print(f"{size:,} rows, made up in {told['make']['seconds']:.1f} s")
    both = (told["score"], told["select"])
    return {
        **told,
        "seconds": sum(part["seconds"] for part in both),
        "peak_mb": max(part["peak_mb"] for part in both),
    }


def _in_process(part: str, run: str, size: int) -> dict[str, Any]:
    code = f"from benchmarks.select import child; child({part!r}, {run!r}, {size})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def child(part: str, run: str, size: int) -> None:
    """Make the run, or do one stage over it; prints seconds and peak memory as JSON."""
    start = time.perf_counter()
    told: dict[str, Any] = {}
    if part == "make":
        make(RunDir(Path(run)), size)
    else:
        from engine.nodes import Nodes
        from engine.stages import score, select

        step = _steps(RunDir(Path(run)))[part]
        nodes = Nodes(num_cpus=2, num_gpus=0, resources=step.config.resources)
        base = peak_memory_mb()
        start, cpu = time.perf_counter(), time.process_time()
        outcome = {"score": score, "select": select}[part].run(step, nodes)
        cpu = time.process_time() - cpu
        told = {"rows_out": outcome.rows_out, "cpu_seconds": cpu, "imports_mb": base}
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_mb": peak_memory_mb(), **told}))


def _steps(run: RunDir) -> dict[str, Step]:
    """Steps of both stages, under made-up fingerprints."""
    config = Config.from_tree({"proxy": {"name": "made"}})
    own = proxy_folder(config)
    names = [POOL, CLUSTER, *(f"{own}/{name}" for name in (TOKENS, *_MEASURED, SCORE))]
    inputs = {name: f"made-{name}" for name in names}
    layout = {"score": f"{own}/{SCORE}", "select": f"{own}/{SELECT}"}
    return {
        name: Step(name, folder, 0, config, run, {}, inputs, f"made-{folder}")
        for name, folder in layout.items()
    }


_MEASURED = [f"{PERPLEXITY}/epoch-{epoch}" for epoch in (0, 1)]


def make(run: RunDir, num_rows: int) -> None:
    """Write what the two stages read, of this many rows; the same for the same number."""
    step = _steps(run)["score"]
    starts = range(0, num_rows, SHARD_ROWS)

    def write(number: int, start: int) -> None:
        tables = _shard(start, min(start + SHARD_ROWS, num_rows), num_rows)
        for folder, table in zip(step.inputs, tables, strict=False):
            run.commit_table(folder, f"part-{number:05d}.parquet", table, step.inputs[folder])

    make_root(run.path)
    for _ in in_order(lambda item: write(*item), enumerate(starts)):
        pass
    runs.mark_whole(Step("pool", POOL, 0, step.config, run, {}, {}, step.inputs[POOL]))


def _shard(start: int, end: int, num_rows: int) -> list[pa.Table]:
    """1-pool, 3-cluster, 4-tokens and two epochs of 5-perplexity for rows `start` to `end`."""
    random = np.random.default_rng(start)
    n = end - start
    ids = _ids(random, n)
    ok = random.random(n) >= FLAGGED
    flag = np.where(ok, schema.OK, schema.PROMPT_TOO_LONG)
    split = np.where(random.random(n) < HELD_OUT, schema.HOLDOUT, schema.TRAIN)
    num_tokens = random.integers(1, 200, n).astype(np.int32)
    # In steps of 1/64 nat, so that equal scores inside a cluster do occur.
    before = np.round(random.gamma(9.0, 0.5, n) * 64) / 64
    after = before - np.round(random.normal(0.7, 0.4, n) * 64) / 64
    clusters = random.integers(0, max(1, num_rows // CLUSTER_ROWS), n).astype(np.int32)
    pool = {
        "id": ids,
        "row": np.arange(start, end),
        "source": ["made"] * n,
        "file": ["made.jsonl"] * n,
        "line": np.arange(start + 1, end + 1),
        "split": split,
        "turns": pa.array([_TURNS]).take(pa.array(np.zeros(n, dtype=np.int32))),
        "raw": [f'{{"instruction": "{i}", "output": "made"}}' for i in ids.to_pylist()],
        "flag": flag,
    }
    no_tokens = pa.array([[]], pa.large_list(pa.int32())).take(pa.array(np.zeros(n, np.int32)))
    tokens = {
        "id": ids,
        "input_ids": no_tokens,
        "scored": no_tokens,
        "end_scored": pa.array(ok),
        "num_prompt_tokens": pa.array(num_tokens % 50, mask=~ok),
        "num_response_tokens": pa.array(num_tokens, mask=~ok),
        "truncated": pa.array(num_tokens > 190, mask=~ok),
        "flag": flag,
    }
    cluster = {
        "id": ids,
        "cluster": pa.array(clusters, mask=~ok),
        "distance": pa.array(random.random(n, dtype=np.float32), mask=~ok),
    }
    measured = [
        {
            "id": ids,
            "nll_sum": pa.array(nll * num_tokens, mask=~ok),
            "num_tokens": pa.array(num_tokens, mask=~ok),
            "nll_last": pa.array(nll, mask=~ok),
        }
        for nll in (before, after)
    ]
    schemas = (schema.POOL, schema.CLUSTERS, schema.TOKENS, schema.PERPLEXITY, schema.PERPLEXITY)
    return list(starmap(_table, zip((pool, cluster, tokens, *measured), schemas, strict=True)))


_TURNS = [{"role": schema.USER, "content": "ask"}, {"role": schema.ASSISTANT, "content": "made"}]


def _table(columns: dict[str, Any], wanted: pa.Schema) -> pa.Table:
    return pa.table(columns).select(wanted.names).cast(wanted)


def _ids(random: np.random.Generator, n: int) -> pa.Array:
    """Random ids of 32 hex digits."""
    digits = random.bytes(16 * n).hex().encode()
    offsets = np.arange(0, 32 * n + 1, 32, dtype=np.int32)
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets), pa.py_buffer(digits))


if __name__ == "__main__":
    main()
