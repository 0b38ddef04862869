"""The tokenising worker: what it makes of a shard of which some rows are left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from conftest import save_tiny_opt
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


def test_masked_turns_and_thoughts_reach_the_template(tmp_path: Path) -> None:
    step = make_step(tmp_path, "tokens", "unused")

    def turn(role: str, content: str, thinking: str = "", scored: bool = True) -> dict[str, object]:
        return {"role": role, "content": content, "thinking": thinking, "scored": scored}

    wrong, right = turn("assistant", "Quito.", scored=False), turn("assistant", "Lima.")
    query, thought = turn("user", "Of Peru?"), turn("assistant", "Lima.", "Hm.")
    conversations = [
        [query, wrong, query, right],
        [query, right, query, wrong],
        [query, wrong],
        [query, thought],
        [query, right, query, right],
    ]
    rows = [
        {"id": full_id(str(i)), "turns": turns, "flag": schema.OK}
        for i, turns in enumerate(conversations)
    ]
    commit(step, POOL, SHARD, pa.Table.from_pylist(rows, schema=schema.POOL))
    num_scored: dict[str, list[int | None]] = {}
    for which in ("all", "last"):
        worker = TokenWorker(ModelSource("proxy.model", "bundled"), "alpaca", 128, which)
        made = worker(step, worker.read(step, SHARD))
        num_scored[which] = made.table["num_response_tokens"].to_pylist()
        assert made.table["flag"].to_pylist() == [
            schema.OK,
            schema.OK if which == "all" else schema.NO_SCORED_TOKEN,
            schema.NO_SCORED_TOKEN,
            schema.THINKING_NOT_RENDERED,
            schema.OK,
        ]
    (one, *_), last = num_scored["all"], num_scored["last"]
    assert one is not None
    assert num_scored["all"] == [one, one, None, None, 2 * one]
    assert last == [one, None, None, None, one]


def test_a_row_with_a_token_past_the_embedding_is_flagged(tmp_path: Path) -> None:
    folder = save_tiny_opt(tmp_path / "model")  # 8,192 rows
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    tokenizer["added_tokens"] += [{"id": 8192, "content": "<image>", "special": True, **flags}]
    path.write_text(json.dumps(tokenizer))
    step = make_step(tmp_path / "run", "tokens", "unused")
    rows = [
        {
            "id": full_id(str(i)),
            "turns": [
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": "A car."},
            ],
            "flag": schema.OK,
        }
        for i, prompt in enumerate(("What is it?", "What is on <image>?", "What is on image>?"))
    ]
    commit(step, POOL, SHARD, pa.Table.from_pylist(rows, schema=schema.POOL))
    worker = TokenWorker(ModelSource("proxy.model", str(folder)), "alpaca", max_tokens=128)
    made = worker(step, worker.read(step, SHARD))
    assert made.table["flag"].to_pylist() == [schema.OK, schema.UNKNOWN_TOKEN, schema.OK]
    assert made.flags == {schema.OK: 2, schema.UNKNOWN_TOKEN: 1}
    assert made.table["input_ids"].is_valid().to_pylist() == [True, False, True]
    kept = [row["scored"] for row in made.table.to_pylist() if row["scored"]]
    assert made.counts["scored_tokens"] == sum(map(len, kept))
    # A configuration that does not say how many rows there are flags none.
    worker.num_tokens = 0
    assert worker(step, worker.read(step, SHARD)).flags == {schema.OK: 3}
