"""A whole run on 500 lines, against the reference's steps one after another.

Run with ``python -m benchmarks.whole [--rows N]``. Start-up is told apart on both sides: of ours
the seconds until a stage's first shard or step begins, of the reference's loading its models.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from sklearn.cluster import KMeans

import engine
from benchmarks import finetune, reference, rows
from benchmarks.harness import Row, first_lines, limit, publish, times_as_fast
from engine.config import Config
from engine.models import ModelSource, load_embedder
from engine.stages.embed import text_of

ROUNDS = 3
ROWS_PER_CLUSTER = 50


def ours(pool: Path, folder: Path) -> tuple[float, float]:
    """Seconds of work and of start-up of ``poolscore run``."""
    start = time.monotonic()
    engine.run(Config.from_tree({"pool": {"paths": [str(pool)]}}), folder)
    total = time.monotonic() - start
    work = 0.0
    for record in engine.open_run(folder).records().values():
        waited = record.details.get("startup_seconds", 0.0)
        if "epoch_seconds" in record.details:
            waited = record.seconds - record.details["epoch_seconds"]
        work += record.seconds - waited
    return work, total - work


def theirs(num_rows: int, folder: Path) -> tuple[float, float]:
    """Seconds of work and of start-up of the reference's steps in one process."""
    start = time.monotonic()
    embedder = load_embedder(ModelSource("embed.model", "bundled"), "float32", "cpu", 256)
    conversations = rows.conversations(num_rows)
    ids, scored = rows.tokenised(num_rows)
    model = rows.proxy_model()
    epoch = finetune.theirs(ids, scored, folder, model)
    began = time.monotonic()
    reference.score_as_published(model, ids, scored, finetune.PAD_ID)
    epoch()
    reference.score_as_published(model.eval(), ids, scored, finetune.PAD_ID)
    turns = [[{"role": role, "content": text} for role, text in row] for row in conversations]
    vectors = embedder.encode([text_of(row) for row in turns], show_progress_bar=False)
    k = max(1, len(turns) // ROWS_PER_CLUSTER)
    KMeans(k, n_init=1, max_iter=20, tol=0, random_state=0).fit(vectors)
    end = time.monotonic()
    return end - began, began - start


def compare(num_rows: int) -> list[Row]:
    a: list[tuple[float, float]] = []
    b: list[tuple[float, float]] = []
    for turn in range(ROUNDS):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            pool = first_lines(folder, num_rows)
            if turn % 2 == 0:
                a.append(ours(pool, folder / "run"))
                b.append(theirs(num_rows, folder / "trainer"))
            else:
                b.append(theirs(num_rows, folder / "trainer"))
                a.append(ours(pool, folder / "run"))
    work, start = (statistics.median(one[place] for one in a) for place in (0, 1))
    return [
        times_as_fast(
            f"whole run, {num_rows} lines, start-up apart",
            "the reference's steps",
            2.5,
            ([seconds for seconds, _ in a], [seconds for seconds, _ in b]),
            f"{work:.0f} s of work",
            ours_work_and_start=a,
            theirs_work_and_start=b,
        ),
        limit("start-up of all stages of that run", "", f"{start:.0f} s", None),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=500, help="lines of the pool (default: 500)")
    torch.manual_seed(0)
    publish("whole", compare(parser.parse_args().rows))


if __name__ == "__main__":
    main()
