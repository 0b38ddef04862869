"""What Ray costs: the actor pool against the same worker in a plain loop, and two actors with one
thread each against one with two, which takes a sixth of the rows.

Run with ``python -m benchmarks.overhead [--rows N]``. Start-up (processes, imports, loading the
model) is told apart: the work is timed from the first shard's start to the last one's commit.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.cloudpickle

import benchmarks.overhead as own_module
from benchmarks import runs
from benchmarks.harness import Row, limit, publish, times_as_fast
from engine import nodes
from engine.config import ResourcesConfig
from engine.mapping import map_shards
from engine.models import proxy_source
from engine.stages.perplexity import PerplexityWorker
from engine.stages.tokens import TokenWorker
from engine.step import Step

ROUNDS = 3
SHARD_ROWS = 512
THREADS = 2


class Stamped(PerplexityWorker):
    """The worker itself, leaving the time of its first shard in a file."""

    def __init__(self, stamps: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.stamps = Path(stamps)

    def read(self, step: Step, shard: str) -> Any:
        with self.stamps.open("a") as file:
            file.write(f"{time.time()}\n")
        return super().read(step, shard)


def prepared(folder: Path, num_rows: int) -> Step:
    """A run directory up to its tokens, and the step that scores it."""
    folder.mkdir()
    steps = runs.with_pool(folder, SHARD_ROWS, num_rows)
    step = steps["tokens"]
    config = step.config
    worker = TokenWorker(proxy_source(config), config.proxy.template, config.proxy.max_tokens)
    for shard in step.shards():
        step.commit(shard, worker(step, worker.read(step, shard)).table)
    return steps["perplexity"]


def settings_of(step: Step, num_threads: int) -> dict[str, Any]:
    return {
        "weights": proxy_source(step.config),
        "dtype": "float32",
        "device": "cpu",
        "batch_tokens": step.config.resources.score_batch_tokens,
        "num_threads": num_threads,
    }


def plain(step: Step) -> tuple[float, float]:
    """Seconds of work and of start-up of the worker in a loop."""
    began = time.time()
    worker = PerplexityWorker(**settings_of(step, THREADS))
    start = time.time()
    for shard in step.shards():
        step.commit(shard, worker(step, worker.read(step, shard)).table)
    return time.time() - start, start - began


def on_ray(step: Step, num_actors: int) -> tuple[float, float]:
    """The same on an actor pool that shares two cores."""
    stamps = step.run.path / "stamps"
    resources = ResourcesConfig(
        num_workers=num_actors, cpus_per_worker=THREADS // num_actors, device="cpu"
    )
    with nodes.session(resources) as cluster:
        began = time.time()
        settings = settings_of(step, THREADS // num_actors)
        map_shards(step, cluster, Stamped, {"stamps": str(stamps), **settings})
    start = min(map(float, stamps.read_text().split()))
    end = max(path.stat().st_mtime for path in (step.run.path / step.folder).glob("part-*"))
    stamps.unlink()
    return end - start, start - began


Timings = dict[str, list[tuple[float, float]]]


def compare(long: Step, short: Step) -> list[Row]:
    """Ray as it shares out two cores against a plain loop, and the two ways it could share them."""
    found = _alternate(long, {"plain": lambda: plain(long), "two": lambda: on_ray(long, 2)})
    ways = _alternate(short, {"one": lambda: on_ray(short, 1), "two": lambda: on_ray(short, 2)})
    starts = statistics.median(start for _, start in found["two"])
    plain_loop = "the same worker in a plain loop, two threads"
    return [
        _row("Ray pipeline, two actors of one thread", plain_loop, 0.9, found, "two", "plain"),
        _row("two actors of one thread", "one actor of two", 0.95, ways, "two", "one"),
        limit("start-up of the actor pool, in no other row", "", f"{starts:.1f} s", None),
    ]


def _alternate(step: Step, arms: dict[str, Callable[[], tuple[float, float]]]) -> Timings:
    found: Timings = {name: [] for name in arms}
    for turn in range(ROUNDS):
        for name in list(arms)[:: 1 if turn % 2 == 0 else -1]:
            shutil.rmtree(step.run.path / step.folder, ignore_errors=True)
            found[name].append(arms[name]())
    return found


def _row(
    what: str,
    against: str,
    aim: float | None,
    found: Timings,
    arm: str,
    base: str,
) -> Row:
    ours, theirs = ([seconds for seconds, _ in found[name]] for name in (arm, base))
    beside = f"{statistics.median(ours):.0f} s of work"
    return times_as_fast(
        what, against, aim, (ours, theirs), beside, seconds_of_work_and_start=found
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=6000, help="rows to score (default: 6000)")
    num_rows = parser.parse_args().rows
    # Workers know the engine, not the benchmarks: the class above travels whole.
    ray.cloudpickle.register_pickle_by_value(own_module)
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"long": num_rows, "short": num_rows // 6}
        steps = {name: prepared(Path(folder) / name, size) for name, size in sizes.items()}
        publish("overhead", compare(steps["long"], steps["short"]))


if __name__ == "__main__":
    own_module.main()  # not as __main__, whose classes do not travel
