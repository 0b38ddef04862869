"""A run directory written by hand: small tables under made fingerprints, no Ray, no models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from engine import schema
from engine.config import Config
from engine.record import Record
from engine.rundir import RunDir
from engine.step import CLUSTER, PERPLEXITY, POOL, TOKENS, Step, proxy_folder
from engine.wholeness import entries


def make_step(folder: Path, stage: str, own: str, config: Config | None = None) -> Step:
    """A step that may read every folder that `commit_pool` and `commit_measured` write."""
    config = config or Config.from_tree({"proxy": {"name": "hand"}})
    base = proxy_folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    names = [POOL, CLUSTER, f"{base}/{TOKENS}"]
    names += [f"{base}/{PERPLEXITY}/epoch-{i}" for i in range(config.finetune.num_epochs + 1)]
    inputs = {name: f"made-{name}" for name in names}
    return Step(stage, f"{base}/{own}", 0, config, RunDir(folder), {}, inputs, f"made-{own}")


def full_id(digits: str) -> str:
    """An id of 32 hex digits that begins with these few."""
    return digits.ljust(32, "0")


def commit(step: Step, name: str, shard: str, table: pa.Table) -> None:
    """Write one shard of an input under its made fingerprint."""
    step.run.path.mkdir(parents=True, exist_ok=True)
    step.run.commit_table(name, shard, table, step.inputs[name])
    if name == POOL:
        mark_whole(step.run, POOL, step.inputs[POOL])


def mark_whole(run: RunDir, folder: str, fingerprint: str, stage: str = "pool") -> Record:
    """The record of a stage that has written what lies in its folder."""
    files = entries(run, folder, run.sizes(folder))
    num_rows = sum(entry.rows or 0 for name, entry in files.items() if name.startswith("part-"))
    record = Record(
        stage=stage,
        fingerprint=fingerprint,
        settings={},
        inputs={},
        rows_in=num_rows,
        rows_out=num_rows,
        flags={},
        seconds=0.0,
        peak_memory_bytes=0,
        workers=1,
        files=files,
        details={},
        versions={},
        commit=None,
        finished="2024-01-01T00:00:00+00:00",
    )
    run.commit_record(folder, record)
    return record


def reader(step: Step, stage: str, own: str) -> Step:
    """The step behind `step`: reads what `step` reads, and what it wrote."""
    folder = f"{proxy_folder(step.config)}/{own}"
    inputs = {**step.inputs, step.folder: step.fingerprint}
    return replace(step, stage=stage, folder=folder, inputs=inputs, fingerprint=f"made-{own}")


def commit_run(
    step: Step,
    shard: str,
    first_row: int,
    ids: Sequence[str],
    clusters: Sequence[int | None],
    sums: Sequence[Sequence[float | None]],
    counts: Sequence[int | None],
    flags: Sequence[str],
    splits: Sequence[str] | None = None,
) -> None:
    """One shard of 1-pool, 3-cluster, 4-tokens and of every epoch of 5-perplexity.

    `ids` are the first digits of each id; `sums` holds one list of NLL sums per epoch; everything
    else one value per row.
    """
    n = len(ids)
    ids = [full_id(i) for i in ids]
    pool = {
        "id": ids,
        "row": range(first_row, first_row + n),
        "source": ["made"] * n,
        "file": ["made.jsonl"] * n,
        "line": range(1, n + 1),
        "split": splits or [schema.TRAIN] * n,
        "turns": [[{"role": "user", "content": f"ask {i}"}] for i in ids],
        "raw": [f'{{"id": "{i}"}}' for i in ids],
        "flag": flags,
    }
    commit(step, POOL, shard, _table(pool, schema.POOL))
    distance = [None if c is None else 0.5 for c in clusters]
    table = _table({"id": ids, "cluster": clusters, "distance": distance}, schema.CLUSTERS)
    commit(step, CLUSTER, shard, table)
    tokens = {
        "id": ids,
        "input_ids": [None if c is None else [2] * (c + 3) for c in counts],
        "scored": [None if c is None else list(range(3, c + 3)) for c in counts],
        "end_scored": [None if c is None else True for c in counts],
        "num_prompt_tokens": [None if c is None else 3 for c in counts],
        "num_response_tokens": counts,
        "truncated": [None if c is None else False for c in counts],
        "flag": flags,
    }
    commit(step, step.proxy_input(TOKENS), shard, _table(tokens, schema.TOKENS))
    for epoch, values in enumerate(sums):
        measured = {"id": ids, "nll_sum": values, "num_tokens": counts, "nll_last": values}
        name = step.proxy_input(PERPLEXITY, epoch)
        commit(step, name, shard, _table(measured, schema.PERPLEXITY))


def _table(columns: dict, wanted: pa.Schema) -> pa.Table:
    arrays = [pa.array(list(columns[f.name]), f.type) for f in wanted]
    return pa.table(arrays, schema=wanted)
