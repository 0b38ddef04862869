"""The scoring worker on the bundled proxy: no batch, shard or padding moves a row by 1e-5 nats."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import save_tiny_opt
from handmade import make_step, mark_whole

from engine import schema
from engine.assets import bundled_proxy
from engine.encoding import Encoded
from engine.maths.ragged import Ragged
from engine.models import load_language_model
from engine.scoring import Way
from engine.stages.perplexity import SLOW, PerplexityWorker, with_warning
from engine.stages.tokens import as_table
from engine.step import TOKENS, Outcome, Step


def made_rows(num_rows: int) -> list[Encoded | None]:
    """Rows of random tokens, 8 to 120 long; every seventh flagged, every fifth cut off."""
    random = np.random.default_rng(1)
    rows: list[Encoded | None] = []
    for i in range(num_rows):
        length = int(random.integers(8, 120))
        first = int(random.integers(2, length - 1))
        rows.append(
            None
            if i % 7 == 3
            else Encoded(
                input_ids=random.integers(5, 8000, length).astype(np.int32),
                scored=np.arange(first, length, dtype=np.int32),
                end_scored=i % 5 != 0,
                truncated=i % 5 == 0,
                flag=schema.OK,
            )
        )
    return rows


def commit_tokens(folder: Path, rows: list[Encoded | None], shard_rows: int) -> Step:
    step = make_step(folder, "perplexity", "unused")
    for number, start in enumerate(range(0, len(rows), shard_rows)):
        part = rows[start : start + shard_rows]
        ids = pa.chunked_array([[f"{start + i:032x}" for i in range(len(part))]])
        flags = [schema.OK if row else schema.EMPTY_RESPONSE for row in part]
        name = f"part-{number:05d}.parquet"
        folder_name = step.proxy_input(TOKENS)
        table = as_table(ids, part, flags)
        step.run.commit_table(folder_name, name, table, step.inputs[folder_name])
        step.run.commit_table("1-pool", name, table, "made-1-pool")  # for the shards' names
    mark_whole(step.run, "1-pool", "made-1-pool")
    return step


def score(step: Step, model: Path, batch_tokens: int) -> list[dict]:
    worker = PerplexityWorker(model, "float32", "cpu", batch_tokens, num_threads=1)
    tables = [worker(step, worker.read(step, shard)).table for shard in step.shards()]
    return [row for table in tables for row in table.to_pylist()]


@torch.no_grad()
def plain_loop(model: Path, rows: list[Encoded | None]) -> list[tuple[float, float] | None]:
    """Summed and last NLL of each row alone, through the model's own logits, in float64."""
    lm = load_language_model(model, "float32", "cpu")
    expected: list[tuple[float, float] | None] = []
    for row in rows:
        if row is None:
            expected.append(None)
            continue
        ids = torch.from_numpy(row.input_ids.astype(np.int64))
        log_probs = lm(input_ids=ids[None]).logits[0].double().log_softmax(-1)
        at = torch.from_numpy(row.scored.astype(np.int64))
        nll = -log_probs[at - 1, ids[at]]
        expected.append((float(nll.sum()), float(nll[-1])))
    return expected


@pytest.mark.parametrize(("shard_rows", "batch_tokens"), [(60, 4096), (60, 200), (7, 1000), (1, 1)])
def test_every_row_equals_a_plain_loop(tmp_path: Path, shard_rows: int, batch_tokens: int) -> None:
    rows, model = made_rows(60), bundled_proxy().folder
    got = score(commit_tokens(tmp_path, rows, shard_rows), model, batch_tokens)
    for row, measured, expected in zip(rows, got, plain_loop(model, rows), strict=True):
        if row is None or expected is None:
            assert measured["nll_sum"] is measured["num_tokens"] is measured["nll_last"] is None
            continue
        num_tokens = len(row.scored)
        assert measured["num_tokens"] == num_tokens
        assert measured["nll_sum"] / num_tokens == pytest.approx(expected[0] / num_tokens, abs=1e-5)
        if row.end_scored:
            assert measured["nll_last"] == pytest.approx(expected[1], abs=1e-4)
        else:
            assert measured["nll_last"] is None


@pytest.mark.parametrize(
    "overrides",
    [{"tie_word_embeddings": False}, {"word_embed_proj_dim": 16}],
    ids=["untied", "projected"],
)
def test_other_shapes_of_opt_as_well(tmp_path: Path, overrides: dict) -> None:
    model = save_tiny_opt(tmp_path / "model", **overrides)
    rows = made_rows(20)
    got = score(commit_tokens(tmp_path / "run", rows, 20), model, 1000)
    for measured, expected in zip(got, plain_loop(model, rows), strict=True):
        if expected is not None:
            assert measured["nll_sum"] == pytest.approx(expected[0], abs=2e-3)
            assert measured["nll_sum"] / measured["num_tokens"] == pytest.approx(
                expected[0] / measured["num_tokens"], abs=1e-5
            )


def test_counts_of_work(tmp_path: Path) -> None:
    rows = made_rows(60)
    step = commit_tokens(tmp_path, rows, 60)
    worker = PerplexityWorker(bundled_proxy().folder, "float32", "cpu", 400, num_threads=1)
    counts = worker(step, worker.read(step, step.shards()[0])).counts
    present = [row for row in rows if row is not None]
    assert counts["tokens"] == sum(len(row.input_ids) for row in present)
    assert counts["scored_tokens"] == sum(len(row.scored) for row in present)
    assert counts["tokens"] <= counts["computed_tokens"] < 1.1 * counts["tokens"]
    assert counts["head_rows"] == counts["scored_tokens"]  # no hidden state more than needed
    assert counts["shared_tokens"] == counts["halved_batches"] == 0
    assert counts["shards_by_full_logits"] == counts["shards_without_padding"] == 0


def test_rows_scored_without_padding_are_said_to_be(tmp_path: Path) -> None:
    rows = made_rows(20)
    step = commit_tokens(tmp_path, rows, 20)
    worker = PerplexityWorker(bundled_proxy().folder, "float32", "cpu", 400, num_threads=1)
    worker.scorer.take(Way(equal_lengths=True))
    worker.prepared = True
    counts = worker(step, worker.read(step, step.shards()[0])).counts
    assert counts["shards_without_padding"] == 1
    assert counts["computed_tokens"] == counts["tokens"]
    told = with_warning(Outcome(20, 20, details=counts, warnings=["before"]))
    assert list(told.warnings) == ["before", SLOW]
    assert with_warning(Outcome(20, 20, details={"shards_without_padding": 0})).warnings == ()


def test_rows_left_out_are_null_and_change_no_other_row(tmp_path: Path) -> None:
    rows = made_rows(20)  # the 4th, 11th and 18th are flagged
    step = commit_tokens(tmp_path, rows, 20)
    (shard,) = step.shards()
    # One row at a time: in a batch a row's last bits depend on the others.
    worker = PerplexityWorker(bundled_proxy().folder, "float32", "cpu", 1, num_threads=1)
    whole = worker(step, worker.read(step, shard))
    assert not whole.flags
    skip = np.isin(np.arange(20), [0, 3, 5, 6, 19])
    made = worker(step, worker.read(step, shard, skip))
    assert made.flags == {schema.SCORING_FAILED: 4}  # the flagged one has failed nobody
    assert made.table["id"].equals(whole.table["id"])
    left_out = made.table.filter(pa.array(skip)).drop_columns("id")
    assert all(column.null_count == 5 for column in left_out.columns)
    kept = pa.array(~skip)
    assert made.table.filter(kept).equals(whole.table.filter(kept))


LOSE_THE_GPU = """
import pickle, sys
from engine.stages.perplexity import PerplexityWorker

def lose(rows):
    raise RuntimeError("CUDA error: unspecified launch failure")

step, model = pickle.load(sys.stdin.buffer)
worker = PerplexityWorker(model, "float32", "cpu", 4096, num_threads=1)
worker.scorer.prepare = lose
worker(step, worker.read(step, step.shards()[0]))
"""


def test_rows_that_lost_a_gpu_are_not_tried_on_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, model = made_rows(20), bundled_proxy().folder
    step = commit_tokens(tmp_path, rows, 20)
    step.run.make(step.folder)
    told = pickle.dumps((step, model))
    root = Path(__file__).parents[2]
    lost = subprocess.run([sys.executable, "-c", LOSE_THE_GPU], input=told, cwd=root, check=False)
    assert lost.returncode == 1

    worker = PerplexityWorker(model, "float32", "cpu", 4096, num_threads=1)
    tried: list[list[int]] = []
    prepare = worker.scorer.prepare

    def noting(probe: Ragged) -> None:
        tried.append(probe.lengths.tolist())
        prepare(probe)

    monkeypatch.setattr(worker.scorer, "prepare", noting)
    made = worker(step, worker.read(step, step.shards()[0]))
    lengths = [len(row.input_ids) for row in rows if row is not None]
    assert tried == [lengths[2:4]]  # the first two are passed over
    assert made.counts["shards_by_full_logits"] == 0
    assert not made.flags
