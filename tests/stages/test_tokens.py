"""The tokenising worker: what it makes of a shard of which some rows are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from handmade import commit, full_id, make_step

from engine import schema
from engine.models import ModelSource
from engine.stages.tokens import TokenWorker
from engine.step import POOL

SHARD = "part-00000.parquet"
PROMPTS = ("Name a car.", "Say nothing.", "Name a river.", "long " * 300, "Name a song.")
"""Of the shard's rows: the second has no response, the fourth leaves no room for one."""


def test_rows_left_out_are_null_and_change_no_other_row(tmp_path: Path) -> None:
    step = make_step(tmp_path, "tokens", "unused")
    rows = [
        {
            "id": full_id(str(i)),
            "turns": [
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": "" if i == 1 else f"Number {i}."},
            ],
            "flag": schema.EMPTY_RESPONSE if i == 1 else schema.OK,
        }
        for i, prompt in enumerate(PROMPTS)
    ]
    commit(step, POOL, SHARD, pa.Table.from_pylist(rows, schema=schema.POOL))
    worker = TokenWorker(ModelSource("proxy.model", "bundled"), "alpaca", max_tokens=128)
    whole = worker(step, worker.read(step, SHARD))
    assert whole.table["flag"].to_pylist() == [
        schema.OK,
        schema.EMPTY_RESPONSE,
        schema.OK,
        schema.PROMPT_TOO_LONG,
        schema.OK,
    ]

    skip = np.array([False, True, True, True, False])
    made = worker(step, worker.read(step, SHARD, skip))
    # A row of which the pool says why it is none keeps that flag.
    flags = [schema.OK, schema.EMPTY_RESPONSE, *2 * [schema.TOKENISING_FAILED], schema.OK]
    assert made.table["flag"].to_pylist() == flags
    assert made.flags == {schema.OK: 2, schema.EMPTY_RESPONSE: 1, schema.TOKENISING_FAILED: 2}
    assert made.table["id"].equals(whole.table["id"])
    for name in set(made.table.column_names) - {"id", "flag"}:
        assert made.table[name].is_valid().to_pylist() == [True, False, False, False, True], name
    kept = pa.array(~skip)
    assert made.table.filter(kept).equals(whole.table.filter(kept))
    assert made.counts["scored_tokens"] == sum(
        len(row["scored"]) for row in made.table.to_pylist() if row["scored"]
    )
    assert worker(step, worker.read(step, SHARD, np.zeros(5, dtype=np.bool_))) == whole
