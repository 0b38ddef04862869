"""Stage 1 on small files: rows, rejects, shards, splits and sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from handmade import make_step

from engine import schema
from engine.config import Config
from engine.errors import PoolError
from engine.stages import pool
from engine.stages.pool import split_of
from engine.step import POOL, Step


def ingest(tmp_path: Path, paths: list[Path], **settings: object) -> tuple[Step, object]:
    config = Config.from_tree({"pool": {"paths": [str(p) for p in paths], **settings}})
    made = make_step(tmp_path / "run", "pool", "unused", config)
    step = Step("pool", POOL, 0, config, made.run, {}, {}, "made-pool")
    return step, pool.run(step, nodes=None)


def rows_of(step: Step) -> list[dict]:
    return [row for shard in step.shards() for row in step.read(POOL, shard).to_pylist()]


def write(path: Path, rows: list[dict | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(i: int, **extra: object) -> dict:
    return {"instruction": f"count to {i}", "output": "1 2 3", **extra}


def test_rows_and_rejects_add_up_and_keep_their_places(tmp_path: Path) -> None:
    a = write(tmp_path / "p/a.jsonl", [row(1), "{", row(2)])
    b = write(tmp_path / "p/sub/b.jsonl", ["[]", row(3), row(1)])
    step, outcome = ingest(tmp_path, [b, a])
    assert outcome.rows_in == 6
    assert (outcome.rows_out, outcome.rejected) == (4, 2)
    assert outcome.flags == {"ok": 3, "duplicate": 1}
    rows = rows_of(step)
    assert [(r["row"], r["file"], r["line"], r["source"]) for r in rows] == [
        (0, "a.jsonl", 1, "a"),
        (1, "a.jsonl", 3, "a"),
        (2, "sub/b.jsonl", 2, "b"),
        (3, "sub/b.jsonl", 3, "b"),
    ]
    assert rows[3]["id"] == rows[0]["id"]
    rejected = step.read(POOL, pool.REJECTED_FILE).to_pylist()
    assert [(r["file"], r["line"], r["reason"]) for r in rejected] == [
        ("a.jsonl", 2, schema.INVALID_JSON),
        ("sub/b.jsonl", 1, schema.NOT_AN_OBJECT),
    ]


def test_shards_close_by_rows_and_by_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [row(i) for i in range(10)])
    step, _ = ingest(tmp_path, [path], shard_rows=4)
    assert [step.run.num_rows(POOL, s) for s in step.shards()] == [4, 4, 2]
    size = len(json.dumps(row(1)))
    step, _ = ingest(tmp_path, [path], shard_bytes=3 * size)
    assert [step.run.num_rows(POOL, s) for s in step.shards()] == [3, 3, 3, 1]


def test_shards_of_a_longer_interrupted_run_do_not_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [row(i) for i in range(10)])
    ingest(tmp_path, [path], shard_rows=2)
    step, _ = ingest(tmp_path, [path], shard_rows=5)
    assert step.shards() == ["part-00000.parquet", "part-00001.parquet"]


def test_raw_is_the_lines_own_bytes_and_source_may_be_a_field(tmp_path: Path) -> None:
    odd = (
        '{"instruction":"\\u00e9 é 😀",   "output": "007", "id": 12345678901234567890, "set": "x"}'
    )
    path = write(tmp_path / "p.jsonl", [odd, row(1)])
    step, _ = ingest(tmp_path, [path], source_field="set")
    rows = rows_of(step)
    assert rows[0]["raw"] == odd
    assert [r["source"] for r in rows] == ["x", "p"]


def test_the_split_follows_the_id_alone() -> None:
    ids = [f"{i:032x}" for i in range(4000)]
    held = [i for i in ids if split_of(i, 0.25) == schema.HOLDOUT]
    assert 850 < len(held) < 1150
    assert set(held) <= {i for i in ids if split_of(i, 0.5) == schema.HOLDOUT}
    assert all(split_of(i, 0.0) == schema.TRAIN for i in ids)


def test_a_pool_without_a_row_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", ["{", '{"a": 1}'])
    with pytest.raises(PoolError, match=r"no row that can be read; 2 lines.*(.|\n)*invalid_json"):
        ingest(tmp_path, [path])
