"""Stage 1 on small files: rows, rejects, shards, splits and sources."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from handmade import make_step, mark_whole
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import schema
from engine.config import Config, ResourcesConfig
from engine.errors import PoolError
from engine.nodes import Nodes
from engine.readers import PIECE_BYTES, PoolFile
from engine.rundir import RunDir
from engine.stages import pool
from engine.stages.pool import split_of
from engine.step import POOL, Outcome, Step


def ingest(
    tmp_path: Path,
    paths: list[Path],
    nodes: Nodes | None = None,
    piece_bytes: int = PIECE_BYTES,
    **settings: object,
) -> tuple[Step, Outcome]:
    tree = {"paths": [str(p) for p in paths], "max_reject_fraction": 1, **settings}
    config = Config.from_tree({"pool": tree})
    made = make_step(tmp_path / "run", "pool", "unused", config)
    step = Step("pool", POOL, 0, config, made.run, {}, {}, "made-pool")
    outcome = pool.run(step, nodes, piece_bytes)
    mark_whole(step.run, POOL, step.fingerprint)
    return step, outcome


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


def test_a_rotten_pool_stops_and_shows_the_worst(tmp_path: Path) -> None:
    a = write(tmp_path / "p/a.jsonl", [*map(row, range(95)), "{", "[]", "{"])
    b = write(tmp_path / "p/b.jsonl", [row(200), "7"])
    with pytest.raises(PoolError) as caught:
        ingest(tmp_path, [a, b], max_reject_fraction=0.03)
    said = str(caught.value)
    assert "4 of 100 lines were rejected (4.0%)" in said
    first, second, third, fourth = said.splitlines()[1:5]
    assert "a.jsonl: 2 × invalid_json, first in line 96 (Expecting property name" in first
    assert "a.jsonl: 1 × not_an_object, first in line 97 (a list)" in second
    assert "b.jsonl: 1 × not_an_object, first in line 2 (a number)" in third
    assert fourth.strip() == f"all of them in {tmp_path / 'run' / POOL / pool.REJECTED_FILE}"
    assert "--set pool.max_reject_fraction=0.04" in said
    step, outcome = ingest(tmp_path, [a, b], max_reject_fraction=0.04)
    assert (outcome.rows_in, outcome.rows_out, outcome.rejected) == (100, 96, 4)
    assert len(step.read(POOL, pool.REJECTED_FILE)) == 4


@pytest.mark.parametrize(("num_bad", "stops"), [(1, False), (2, True)])
def test_one_bad_line_never_stops_a_pool(tmp_path: Path, num_bad: int, stops: bool) -> None:
    path = write(tmp_path / "p.jsonl", [row(1), *["{"] * num_bad])
    if stops:
        with pytest.raises(PoolError, match="2 of 3 lines were rejected"):
            ingest(tmp_path, [path], max_reject_fraction=0.01)
    else:
        assert ingest(tmp_path, [path], max_reject_fraction=0.01)[1].rejected == 1


def test_a_broken_file_stops_unless_its_rows_are_wanted(tmp_path: Path) -> None:
    whole = write(tmp_path / "p/a.jsonl", [row(1)])
    cut_off = tmp_path / "p/b.json"
    cut_off.write_text(f"[{json.dumps(row(2))},\n {json.dumps(row(3))},\n {{")
    with pytest.raises(PoolError) as caught:
        ingest(tmp_path, [whole, cut_off])
    assert "files of the pool are broken: 1" in str(caught.value)
    assert "b.json, line 3: broken_file, a pool file is not valid JSON: " in str(caught.value)
    step, outcome = ingest(tmp_path, [whole, cut_off], keep_broken_files=True)
    assert (outcome.rows_out, outcome.details["rejected"]) == (3, {"broken_file": 1})
    (entry,) = step.read(POOL, pool.REJECTED_FILE).to_pylist()
    assert (entry["file"], entry["line"], entry["reason"]) == ("b.json", 3, schema.BROKEN_FILE)


def test_what_is_tolerated_is_no_part_of_what_the_rows_are(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [row(1)])
    run = RunDir(tmp_path / "run")
    found = [
        pool.settings(Config.from_tree({"pool": {"paths": [str(path)], **own}}), run, 0)
        for own in (
            {},
            {"max_reject_fraction": 1},
            {"keep_broken_files": True},
            {"max_row_bytes": 9},
        )
    ]
    assert found[0] == found[1] == found[2] != found[3]


# ── keys and sources ─────────────────────────────────────────────────────────────────────────────


def test_keys_that_play_no_part_are_listed_with_their_rows(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "q", "name": "Ann"}, {"role": "gpt", "content": "a"}]
    made = [row(1, id=1, note=""), row(2, id=2, **{"SECRET text": 1}), {"messages": turns, "id": 3}]
    _, outcome = ingest(tmp_path, [write(tmp_path / "p.jsonl", [*made, '{"id": 4}'])])
    assert outcome.details["unused_keys"] == {"id": 3, "messages[].name": 1}
    assert outcome.details["unused_keys_unlisted"] == 1
    assert outcome.notes == [
        "keys of the pool that play no part: id (3 rows), messages[].name (1), "
        "names not shown (1). See docs/formats.md"
    ]
    assert (outcome.rows_in, outcome.rows_out) == (4, 3)
    _, outcome = ingest(tmp_path, [write(tmp_path / "p.jsonl", [row(1), row(2, id=None)])])
    assert (outcome.details["unused_keys"], outcome.notes) == ({}, [])


def test_masks_and_thoughts_reach_the_columns(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a", "weight": 0},
        {"role": "user", "content": "r"},
        {"role": "assistant", "content": "b", "reasoning_content": "t"},
    ]
    step, _ = ingest(tmp_path, [write(tmp_path / "p.jsonl", [{"messages": turns}])])
    assert [(t["content"], t["thinking"], t["scored"]) for t in rows_of(step)[0]["turns"]] == [
        ("q", "", True),
        ("a", "", False),
        ("r", "", True),
        ("b", "t", True),
    ]


def test_rows_that_differ_by_a_picture_alone_are_no_duplicates(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<image> What?"}, {"from": "gpt", "value": "A cat"}]
    made = [{"image": f"{i}.png", "conversations": turns} for i in (1, 2, 2)]
    _, outcome = ingest(tmp_path, [write(tmp_path / "p.jsonl", made)])
    assert outcome.flags == {"non_text_content": 2, "duplicate": 1}


def test_nulls_of_parquet_are_nothing(tmp_path: Path) -> None:
    no_call = {"name": None, "arguments": None}
    turns = [
        {"role": role, "content": role, "function_call": no_call, "weight": None}
        for role in ("user", "assistant")
    ]
    made = [
        {"messages": turns, "instruction": "", "output": ""},
        {"messages": [], "instruction": "Add.", "output": "4"},
    ]
    pq.write_table(pa.Table.from_pylist(made), tmp_path / "p.parquet")
    step, outcome = ingest(tmp_path, [tmp_path / "p.parquet"])
    assert (outcome.flags, outcome.notes) == ({"ok": 2}, [])
    assert [len(r["turns"]) for r in rows_of(step)] == [2, 2]


def test_a_source_inside_an_object(tmp_path: Path) -> None:
    made = [
        row(1, meta={"source": "wiki", "lang": "en"}),
        row(2, meta={"source": 7}),
        row(3, **{"meta.source": "dotted", "meta": {"source": "no"}}),
        row(4, meta={"source": None}),
        row(5, meta="text"),
    ]
    path = write(tmp_path / "p.jsonl", made)
    step, outcome = ingest(tmp_path, [path], source_field="meta.source")
    assert [r["source"] for r in rows_of(step)] == ["wiki", "7", "dotted", "p", "p"]
    assert outcome.details["rows_without_source"] == 2
    assert outcome.details["unused_keys"] == {"meta": 2, "meta.lang": 1}
    assert outcome.warnings[0] == (
        "2 of 5 rows have no meta.source: their source is the name of their file"
    )
    pq.write_table(pa.Table.from_pylist([row(1, meta={"source": "x"})]), tmp_path / "p.parquet")
    step, _ = ingest(tmp_path / "parquet", [tmp_path / "p.parquet"], source_field="meta.source")
    assert [r["source"] for r in rows_of(step)] == ["x"]


def test_a_source_that_no_row_has_is_refused_before_shards(tmp_path: Path) -> None:
    made = [row(1, meta={"source": "a", "SECRET text": 1}), row(2, meta={"source": "b"})]
    path = write(tmp_path / "p.jsonl", made)
    with pytest.raises(PoolError) as caught:
        ingest(tmp_path, [path], source_field="meta.sorce")
    said = str(caught.value)
    assert "no row of the pool has pool.source_field = 'meta.sorce'" in said
    assert "did you mean 'meta.source'? The rows have instruction, meta.source, output and" in said
    assert "SECRET" not in said
    assert not list((tmp_path / "run" / POOL).glob("part-*"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "a,b\n1,2,3\n4\n", "whether the columns are separated as the header is"),
        ("a.json", "[]", "the files hold no rows"),
        ("a.json", '{"valid": [{"a": 1}], "train": [{"a": 1}]}', "jq -c '.valid[]'"),
        ("a.parquet", "PAR1", "write or download it again"),
    ],
)
def test_the_hint_fits_what_the_file_is(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(PoolError) as caught:
        ingest(tmp_path, [path])
    assert said in caught.value.fix
    assert "pool.fields" not in str(caught.value)


def test_a_source_that_is_empty_everywhere_is_no_slip(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [row(1, source=None), row(2, source="")])
    with pytest.raises(PoolError, match="'source' is empty in every row"):
        ingest(tmp_path, [path], source_field="source")
    path = write(tmp_path / "q.jsonl", [row(1, meta={"source": "s"})])
    with pytest.raises(PoolError, match=r"did you mean 'meta\.source'"):
        ingest(tmp_path, [path], source_field="sorce")


@pytest.mark.parametrize(
    ("lines", "config", "said"),
    [
        (
            [{"dialogs": [{"who": "a", "says": "b"}]}] * 3,
            {},
            "--set pool.fields.turns=dialogs",
        ),
        ([{"Prompts": "q", "reply": "a"}] * 3, {}, "--set pool.fields.prompt=Prompts"),
        ([row(1), *["[1]"] * 3], {}, "a .jsonl file holds one JSON object a line"),
        (["{"] * 3, {}, "a .jsonl file holds one JSON object a line"),
        (
            [{"messages": [{"role": "narrator", "content": "q"}]}] * 3,
            {},
            "--set pool.fields.turns=messages --set pool.fields.roles.NAME=user",
        ),
        ([], {}, "the files hold no rows"),
        ([""], {}, "the files hold no rows"),
        ([{"messages": '[{"role": "user"}]'}] * 3, {}, "text, expected a list of turns: write"),
        ([{"messages": []}] * 3, {}, "messages is empty: write each"),
        ([row(1, output=4)] * 3, {}, "output: a number, expected text: write each text as text"),
        (
            [row(1)] * 3,
            {"fields": {"prompt": "instructions", "response": "output"}},
            "the rejected rows have instruction, output; 'instructions' may be 'instruction'",
        ),
    ],
)
def test_the_hint_fits_what_the_rows_are(
    tmp_path: Path, lines: list[dict | str], config: dict[str, object], said: str
) -> None:
    path = write(tmp_path / "p.jsonl", lines)
    with pytest.raises(PoolError) as caught:
        ingest(tmp_path, [path], **{"max_reject_fraction": 0.01, **config})
    assert said in str(caught.value)
    assert ("pool.fields" in str(caught.value)) == ("pool.fields" in said or "fields" in config)


@pytest.mark.parametrize(
    ("kind", "lines", "config"),
    [
        ("jsonl", ["{"] * 3, {}),
        ("jsonl", [row(1), "{", "{"], {}),
        ("json", ['[{"prompt": "q", "response": "a"}, {'], {}),
        ("jsonl", [row(1)], {"source_field": "x"}),
    ],
)
def test_a_files_name_cannot_act_on_a_terminal(
    tmp_path: Path, kind: str, lines: list[dict | str], config: dict[str, object]
) -> None:
    path = write(tmp_path / f"a\x1b[31m.{kind}", lines)
    with pytest.raises(PoolError) as caught:
        ingest(tmp_path, [path], **{"max_reject_fraction": 0, **config})
    assert "\N{SYMBOL FOR ESCAPE}[31m" in str(caught.value)
    assert "\x1b" not in str(caught.value)


# ── pieces, duplicates, shards ───────────────────────────────────────────────────────────────────


def many_kinds(folder: Path) -> Path:
    """Five files of every kind: rows and rejects, duplicates inside, across pieces and files."""
    lines = [json.dumps(row(i % 17)) for i in range(40)]
    lines[3:3] = ["", "{", '{"instruction": "👩 é", "output": " "}', " \t", "[]"]
    write(folder / "a.jsonl", ["\ufeff" + lines[0], *(f"{line}\r" for line in lines[1:])])
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[5:20]).encode()))
    (folder / "c.json").write_text(json.dumps([row(i) for i in range(12, 20)], indent=1))
    pq.write_table(
        pa.Table.from_pylist([row(i, extra="x") for i in range(25)]), folder / "d.parquet"
    )
    (folder / "e.jsonl").write_bytes(b'{"a": "\xff"}\n' + "\n".join(lines[::-1]).encode())
    return folder


def written(step: Step) -> dict[str, bytes]:
    folder = step.run.path / POOL
    there = {path.name for path in folder.iterdir()} - {"_stage.json"}
    assert there == step.entries().keys()  # and nothing hidden
    return {name: (folder / name).read_bytes() for name in there}


SHARDS = {"shard_rows": 7, "shard_bytes": 300, "holdout_fraction": 0.3}


@pytest.mark.parametrize("piece_bytes", [1, 40, 301, 2000])
def test_pieces_never_change_what_is_written(tmp_path: Path, piece_bytes: int) -> None:
    folder = many_kinds(tmp_path / "p")
    step, outcome = ingest(tmp_path / "whole", [folder], **SHARDS)
    pieced, again = ingest(tmp_path / "pieced", [folder], None, piece_bytes, **SHARDS)
    assert written(pieced) == written(step)
    assert (again.rows_in, again.flags, again.details) == (
        outcome.rows_in,
        outcome.flags,
        outcome.details,
    )
    rows = rows_of(step)
    assert [r["row"] for r in rows] == list(range(len(rows)))
    seen: set[str] = set()
    for r in rows:
        assert (r["flag"] == schema.DUPLICATE) == (r["id"] in seen)
        seen.add(r["id"])
    assert outcome.flags["duplicate"] > 50
    assert outcome.details["rejected"] == {"invalid_json": 2, "not_an_object": 3, "invalid_utf8": 1}


def test_ray_writes_the_same(tmp_path: Path, ray_session: None) -> None:
    folder = many_kinds(tmp_path / "p")
    nodes = Nodes(num_cpus=2, num_gpus=0, resources=ResourcesConfig())
    step, alone = ingest(tmp_path / "alone", [folder], **SHARDS)
    shared, outcome = ingest(tmp_path / "ray", [folder], nodes, 2000, **SHARDS)
    assert written(shared) == written(step)
    assert (alone.workers, outcome.workers) == (1, 2)
    (folder / "b.jsonl.gz").write_bytes(b"broken")
    with pytest.raises(PoolError, match=r"b\.jsonl\.gz, line 1: broken_file, .*not whole gzip"):
        ingest(tmp_path / "ray", [folder], nodes, 2000, **SHARDS)
    assert {**written(shared), "rejected.parquet": b""} == {
        **written(step),
        "rejected.parquet": b"",
    }


def test_parts_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", [row(i) for i in range(10)])
    left = tmp_path / "run" / POOL / ".parts-left" / "a.rows.arrow"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    step, _ = ingest(tmp_path, [path])
    assert set(written(step)) == {"part-00000.parquet", "rejected.parquet"}


def test_a_batch_is_whole_beginnings_or_one_later_piece(tmp_path: Path) -> None:
    names = {"a": 3, "b": 3, "c": 25, "d": 4, "e": 8, "f": 1}
    files = []
    for name, size in names.items():
        (tmp_path / f"{name}.jsonl").write_bytes(b"x" * size)
        files.append(PoolFile(tmp_path / f"{name}.jsonl", name))
    batches = pool._batches(files, 10)
    assert [[(p.file.name, p.start, p.end) for p in batch] for batch in batches] == [
        [("a", 0, 3), ("b", 0, 3), ("c", 0, 10)],
        [("c", 10, 20)],
        [("c", 20, 25)],
        [("d", 0, 4), ("e", 0, 8)],
        [("f", 0, 1)],
    ]


# What other tools take for numbers, dates, line ends or the end of a text.
NUMBERS = ("007", "1e5", "12345678901234567890", "2024-01-31", "NaN", "null", "True")
ENDS = ("\x00", "a\r\nb", "\x85\u2028\x0b", "\ufeff")
SCRIPTS = ("שלום", "\u202eabc", "👩\u200d👧", "e\u0301", "\ud83d", "\ude00a")
tricky = st.sampled_from([*NUMBERS, *ENDS, *SCRIPTS])
texts = tricky | st.text(max_size=8)  # hypothesis puts surrogates in too


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(texts, texts, texts), min_size=1, max_size=6))
def test_a_text_is_kept_code_point_by_code_point_or_rejected(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    """From the line to the columns of Parquet: turns, the row's own JSON, and a name it brings."""
    folder = tmp_path_factory.mktemp("texts")
    made = [{"instruction": f"Say {p}", "output": f"So: {r}", "id": n} for p, r, n in rows]
    path = write(folder / "p.jsonl", [*made, row(1)])
    step, outcome = ingest(folder, [path])
    meant = json.loads(json.dumps(made))  # two halves of a pair that meet are one character
    good = [each for each in meant if not _is_torn(each["instruction"] + each["output"])]
    found = rows_of(step)[:-1]
    assert [[turn["content"] for turn in each["turns"]] for each in found] == [
        [each["instruction"], each["output"]] for each in good
    ]
    assert [json.loads(each["raw"]) for each in found] == good
    rejected = step.read(POOL, pool.REJECTED_FILE).to_pylist()
    assert {each["reason"] for each in rejected} <= {schema.LONE_SURROGATE}
    assert len(rejected) == len(made) - len(good) == outcome.rejected


def _is_torn(text: str) -> bool:
    """Whether it holds half of a surrogate pair."""
    return any("\ud800" <= char <= "\udfff" for char in text)
