"""A corpus with one file of each kind of trouble, and what must become of every line of it."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import make_step, mark_whole

from engine import schema
from engine.config import Config
from engine.errors import PoolError
from engine.readers import PIECE_BYTES
from engine.stages import pool
from engine.step import POOL, Step

MAX_ROW_BYTES = 300_000
Truth = dict[int, str]
"""Reason or flag by line; rows that are `ok` are left out."""
_numbers = count()


def row(**fields: object) -> bytes:
    """JSON of a row that is like no other."""
    number = next(_numbers)
    return json.dumps({"prompt": f"p{number}", "response": f"r{number}", **fields}).encode()


def lines(*rows: bytes) -> bytes:
    return b"".join(each + b"\n" for each in rows)


def zstd(data: bytes) -> bytes:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(data)
    return packed.getvalue().to_pybytes()


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def plain(**columns: list[str]) -> bytes:
    return parquet(pa.table(columns))


TWICE = row()
UUIDS = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef"], pa.binary(16)))
CORPUS: dict[str, tuple[bytes, int, Truth]] = {
    # File: what is in it, its good rows, and what becomes of the other lines.
    "utf8.jsonl": (
        lines(row(), b'{"prompt": "\xff", "response": "a"}'),
        1,
        {2: schema.INVALID_UTF8},
    ),
    "bom.jsonl": (b"\xef\xbb\xbf" + lines(row(), row()), 2, {}),
    "utf16.jsonl": (lines(row()).decode().encode("utf-16"), 0, {1: schema.WRONG_KIND}),
    "control.jsonl": (
        lines(row(response="a\x01b"), b'{"prompt": "a\x01b", "response": "a"}'),
        1,
        {2: schema.INVALID_JSON},
    ),
    "surrogate.jsonl": (lines(row(response="\ud83d"), row()), 1, {1: schema.LONE_SURROGATE}),
    "keys.jsonl": (
        lines(b'{"prompt": "a", "response": "b", "prompt": "c"}', row()),
        1,
        {1: schema.DUPLICATE_KEY},
    ),
    "twice.jsonl": (lines(TWICE, row(), TWICE), 2, {3: schema.DUPLICATE}),
    "fields.jsonl": (
        lines(
            b'{"prompt": "alone"}',
            row(response=""),
            row(response=7),
            row(more=None),
            b'{"prompt": ' + b"[" * 10**5 + b"]" * 10**5 + b"}",
            b'{"text": "of no format"}',
            b"[1]",
            b'{"messages": []}',
            b'{"messages": [{"role": "narrator", "content": "x"}]}',
        ),
        1,
        {
            1: schema.MISSING_FIELD,
            2: schema.EMPTY_RESPONSE,
            3: schema.WRONG_TYPE,
            5: schema.INVALID_JSON,
            6: schema.UNKNOWN_FORMAT,
            7: schema.NOT_AN_OBJECT,
            8: schema.NO_TURNS,
            9: schema.UNKNOWN_ROLE,
        },
    ),
    "numbers.jsonl": (
        lines(b'{"prompt": "a", "response": NaN}', row(id=10**1000), row(id=10**20)),
        2,
        {1: schema.INVALID_JSON},
    ),
    "cut.jsonl": (lines(row()) + b'{"prompt": "cu', 1, {2: schema.INVALID_JSON}),
    "blank.jsonl": (b"\n  \n" + lines(row(), b"", row()), 2, {}),
    "crlf.jsonl": (row() + b"\r\n" + row() + b"\r\n", 2, {}),
    "large.jsonl": (
        lines(row(), row(response="x" * MAX_ROW_BYTES), row()),
        2,
        {2: schema.ROW_TOO_LARGE},
    ),
    "members.jsonl.gz": (gzip.compress(lines(row())) + gzip.compress(lines(row())), 2, {}),
    "cut.jsonl.gz": (
        gzip.compress(lines(row())) + gzip.compress(lines(row()))[:10],
        0,  # what comes out of an archive comes in blocks, and this one is not whole
        {1: schema.BROKEN_FILE},
    ),
    "frames.jsonl.zst": (zstd(lines(row())) + zstd(lines(row())), 2, {}),
    "cut.jsonl.zst": (zstd(lines(row()))[:-5], 0, {1: schema.BROKEN_FILE}),
    "gzip.jsonl": (gzip.compress(lines(row())), 0, {1: schema.WRONG_KIND}),
    "array.json": (b"[" + row() + b",\n7,\n" + row() + b"]", 2, {2: schema.NOT_AN_OBJECT}),
    "broken.json": (b"[" + row() + b',\n{"a"', 1, {2: schema.BROKEN_FILE}),
    "one.parquet": (plain(prompt=["in one file"], response=["these columns"]), 1, {}),
    "other.parquet": (plain(instruction=["in the other"], output=["those"], note=["x"]), 1, {}),
    "cut.parquet": (plain(prompt=["a"], response=["b"])[:-20], 0, {1: schema.BROKEN_FILE}),
    "empty.parquet": (b"", 0, {1: schema.BROKEN_FILE}),
    "names.parquet": (
        parquet(pa.table([["a"], ["b"], ["c"]], names=["prompt", "response", "response"])),
        0,
        {1: schema.BROKEN_FILE},
    ),
    "lines.json": (
        lines(row(), b"7", row(), b'{"prompt": "\xff"}'),
        2,
        {2: schema.NOT_AN_OBJECT, 4: schema.INVALID_UTF8},
    ),
    "inside.json": (b'{"data": [' + row() + b",\n7]}", 1, {2: schema.NOT_AN_OBJECT}),
    "one.json": (row(), 1, {}),
    "columns.json": (b'{"prompt": ["a"], "response": ["b"]}', 0, {1: schema.BROKEN_FILE}),
    "lines.json.gz": (gzip.compress(lines(row(), b"[1]")), 1, {2: schema.NOT_AN_OBJECT}),
    "table.csv": (
        b'prompt,response\n"in a\ntable","""yes"""\nalone\n\xff,x\nno answer,\n',
        1,
        {4: schema.RAGGED_ROW, 5: schema.INVALID_UTF8, 6: schema.EMPTY_RESPONSE},
    ),
    "large.csv": (
        b"prompt,response\nlarge," + b"x" * MAX_ROW_BYTES + b"\nsmall,row\n",
        1,
        {2: schema.ROW_TOO_LARGE},
    ),
    "open.csv": (b'prompt,response\nbefore,it\n"open,x\ny,z\n', 1, {3: schema.BROKEN_FILE}),
    "table.tsv": (b"prompt\tresponse\nin a\ttsv, too\n", 1, {}),
    "pointer.csv": (b"version https://git-lfs.github.com/spec/v1\n", 0, {1: schema.WRONG_KIND}),
    "login.parquet": (b"<!DOCTYPE html>\n<html></html>", 0, {1: schema.WRONG_KIND}),
    "one.arrow": (arrow(pa.table({"prompt": ["in a stream"], "response": ["x"]})), 1, {}),
    "cut.arrow": (
        arrow(pa.table({"prompt": ["in a broken one"], "response": ["x"]}))[:-8],
        1,
        {2: schema.BROKEN_FILE},
    ),
    "types.arrow": (arrow(pa.table({"id": UUIDS})), 0, {1: schema.UNSAFE_FILE}),
    "dataset_infos.json": (b"{", 0, {}),
    "types.parquet": (parquet(pa.table({"id": UUIDS})), 0, {1: schema.UNSAFE_FILE}),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "corpus"
    made.mkdir()
    for name, (data, _, _) in CORPUS.items():
        (made / name).write_bytes(data)
    return made


def ingest(folder: Path, piece_bytes: int, **settings: object) -> Step:
    tree = {"paths": [str(folder)], "max_row_bytes": MAX_ROW_BYTES, **settings}
    config = Config.from_tree({"pool": tree})
    run = make_step(folder.parent / "run", "pool", "unused", config).run
    step = Step("pool", POOL, 0, config, run, {}, {}, "made-pool")
    outcome = pool.run(step, None, piece_bytes)
    mark_whole(step.run, POOL, step.fingerprint)
    assert outcome.rows_in == outcome.rows_out + outcome.rejected
    return step


@pytest.mark.parametrize("piece_bytes", [64, PIECE_BYTES])
def test_every_line_is_a_row_or_rejected_for_its_own_reason(folder: Path, piece_bytes: int) -> None:
    step = ingest(folder, piece_bytes, max_reject_fraction=1, keep_broken_files=True)
    rows = [made for shard in step.shards() for made in step.read(POOL, shard).to_pylist()]
    rejected = step.read(POOL, pool.REJECTED_FILE).to_pylist()
    assert Counter(made["file"] for made in rows if made["flag"] == schema.OK) == Counter(
        {name: good for name, (_, good, _) in CORPUS.items() if good}
    )
    found = {(made["file"], made["line"]): made["flag"] for made in rows}
    found = {place: flag for place, flag in found.items() if flag != schema.OK}
    found |= {(each["file"], each["line"]): each["reason"] for each in rejected}
    assert found == {
        (name, line): why for name, (_, _, truth) in CORPUS.items() for line, why in truth.items()
    }
    assert len(rows) + len(rejected) == sum(good + len(truth) for _, good, truth in CORPUS.values())


def test_broken_files_stop_the_run_whatever_may_be_rejected(folder: Path) -> None:
    with pytest.raises(PoolError, match=r"cut\.jsonl\.gz") as caught:
        ingest(folder, PIECE_BYTES, max_reject_fraction=1)
    assert "to_json(FILE, orient='records', lines=True)" in str(caught.value)  # of columns.json


def test_a_rotten_pool_stops_the_run_and_lists_the_worst(folder: Path) -> None:
    for name, (_, _, truth) in CORPUS.items():
        if set(truth.values()).intersection(schema.FILE_REASONS):
            (folder / name).unlink()
    with pytest.raises(PoolError, match=r"fields\.jsonl"):
        ingest(folder, PIECE_BYTES, max_reject_fraction=0.01)
