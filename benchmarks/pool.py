"""Stage 1: rows per second of ingest, one core against all of them.

    python -m benchmarks.pool [--rows 50000] [--pairs 3]

Both arms cut the same made JSONL file into the same pieces and write the same shards: one in this
process, the other as tasks on every core. Ray is started before; its start is a line of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from benchmarks.harness import Row, alternate, limit, peak_memory_mb, publish, ratio
from engine.config import Config, ResourcesConfig
from engine.nodes import Nodes, session
from engine.rundir import RunDir
from engine.stages import pool
from engine.step import POOL, Step

SEED = 0
WORDS = ("river", "stone", "to", "of", "garden", "is", "and", "it", "naïve", "数", "'so'", '"\\"')
LENGTHS = {"instruction": (6, 30), "input": (0, 40), "output": (10, 220)}
"""Fewest and most words of each field: some 800 bytes a row, as in Dolly."""


def write_pool(path: Path, num_rows: int) -> None:
    """Write `num_rows` rows, the same bytes each time; each hundredth repeats the row before."""
    chance = random.Random(SEED)
    # Rows are put together from ready texts: to draw every word would take longer than to read it.
    texts = {
        key: [" ".join(chance.choices(WORDS, k=chance.randint(*most))) for _ in range(1000)]
        for key, most in LENGTHS.items()
    }
    row: dict[str, str] = {}
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_rows):
            if number % 100 != 99:
                row = {key: chance.choice(choices) for key, choices in texts.items()}
                row["instruction"] += f" ({number})"
            file.write(json.dumps(row, ensure_ascii=number % 2 == 0) + "\n")


def ingest(path: Path, folder: Path, nodes: Nodes | None) -> None:
    """Run stage 1 into `folder`."""
    config = Config.from_tree({"pool": {"paths": [str(path)]}})
    folder.mkdir(exist_ok=True)
    pool.run(Step("pool", POOL, 0, config, RunDir(folder), {}, {}, "benchmark"), nodes)


def measure(folder: Path, num_rows: int, pairs: int | None) -> list[Row]:
    """Both arms over one file, and whether they have written the same bytes."""
    path, one, many = (folder / name for name in ("pool.jsonl", "one", "many"))
    write_pool(path, num_rows)
    start = time.perf_counter()
    with session(ResourcesConfig()) as nodes:
        ray_seconds = time.perf_counter() - start
        timings = alternate(
            lambda: ingest(path, many, nodes), lambda: ingest(path, one, None), pairs
        )
    for file in (one / POOL).iterdir():
        assert file.read_bytes() == (many / POOL / file.name).read_bytes(), file.name
    sizes = {"rows": num_rows, "megabytes": path.stat().st_size / 2**20}
    what = f"ingest on {nodes.num_cpus} cores"
    return [
        ratio(what, "in one process", None, timings, num_rows, "rows", **sizes),
        limit("start of Ray", "", f"{ray_seconds:.1f} s", None),
        limit("peak memory of the driver", "", f"{peak_memory_mb():,.0f} MB", None),
    ]


def main() -> None:
    """Read the options, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000, help="rows of the made pool")
    parser.add_argument("--pairs", type=int, help="timed pairs; without it the harness decides")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        publish("pool", measure(Path(folder), options.rows, options.pairs))


if __name__ == "__main__":
    main()
