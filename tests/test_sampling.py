"""Lines of a pool, counted and drawn without reading them all; against reading them all."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine import sampling
from engine.errors import PoolError

ROWS = [{"instruction": f"Say {i}.", "output": "long " * (i * 7 % 50) + str(i)} for i in range(400)]
SUFFIXES = [".jsonl", ".jsonl.gz", ".json", "-lines.json", ".csv", ".parquet", ".arrow"]
LINES = [json.dumps(row).encode() for row in ROWS]


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"pool{suffix}"
    if suffix == ".jsonl":
        path.write_bytes(b"\n".join(LINES) + b"\n")
    elif suffix == ".jsonl.gz":
        path.write_bytes(gzip.compress(b"\n".join(LINES)))
    elif suffix == "-lines.json":
        path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(LINES))
    elif suffix == ".csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ROWS[0].keys())
            writer.writeheader()
            writer.writerows(ROWS)
    elif suffix == ".arrow":
        table = pa.Table.from_pylist(ROWS)
        with pa.ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table, max_chunksize=150)
    elif suffix == ".json":
        path.write_bytes(b"[" + b",\n".join(LINES) + b"]")
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=150)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_sample_is_some_lines_in_order(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "_BLOCK_BYTES", 1000)  # lines that straddle many blocks
    path = str(write(tmp_path, suffix))
    sample = sampling.draw((path,), 60, seed=1)
    assert sample.num_lines == 400
    assert not sample.is_whole
    rows = [json.loads(line) for line in sample.lines]
    places = [ROWS.index(row) for row in rows]
    first = 2 if suffix == ".csv" else 1
    assert sample.places == [f"{Path(path).name}, line {place + first}" for place in places]
    assert len(places) == 60
    assert places == sorted(set(places))
    assert sample == sampling.draw((path,), 60, seed=1)
    assert sample.lines != sampling.draw((path,), 60, seed=2).lines


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_small_pool_comes_whole(suffix: str, tmp_path: Path) -> None:
    sample = sampling.draw((str(write(tmp_path, suffix)),), 1000, seed=1)
    assert sample.is_whole
    assert [json.loads(line) for line in sample.lines] == ROWS


def test_lines_of_any_length_and_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks shorter than lines, blank lines, no newline at the end: as Python splits them."""
    text = b"a\n\nbb\n" + b"c" * 23 + b"\n\n\ndddd\ne"
    path = tmp_path / "pool.jsonl"
    for end in (b"", b"\n"):
        path.write_bytes(text + end)
        for size in (1, 2, 3, 5, 8, 100):
            monkeypatch.setattr(sampling, "_BLOCK_BYTES", size)
            sample = sampling.draw((str(path),), 100, seed=0)
            assert sample.lines == text.split(b"\n"), size


def test_files_share_one_draw(tmp_path: Path) -> None:
    for name, rows in (("a", LINES[:100]), ("b", LINES[100:])):
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(rows))
    sample = sampling.draw((str(tmp_path),), 80, seed=3)
    assert sample.num_lines == 400
    assert [LINES.index(line) for line in sample.lines] == sorted(map(LINES.index, sample.lines))
    assert len(set(sample.lines)) == 80


def test_every_line_is_equally_likely(tmp_path: Path) -> None:
    """Long lines are no likelier than short ones: 10 of 40 lines, drawn 200 times."""
    path = tmp_path / "pool.jsonl"
    path.write_bytes(b"\n".join(b"%d" % i + b"x" * (i * 20) for i in range(40)))
    drawn = [line for seed in range(200) for line in sampling.draw((str(path),), 10, seed).lines]
    counts = np.bincount([len(line) // 20 for line in drawn], minlength=40)
    assert counts.sum() == 2000
    assert counts.min() > 25  # 50 expected, four standard deviations are 25
    assert counts.max() < 75


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("pool.parquet", b"PAR1 and then nothing", "does not end in a footer"),
        ("pool.arrow", b"ARROW1", "does not end in a footer"),
        ("pool.csv", b'a,b\n"', "a quote is never closed"),
        ("pool.json", b'[{"a": 1}', "Expecting ',' or ']'"),
        ("pool.jsonl", gzip.compress(b"{}"), "gzip"),
        ("pool.jsonl", b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, data: bytes, what: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(PoolError, match=what) as caught:
        sampling.draw((str(tmp_path),), 10, seed=0)
    assert str(tmp_path / name) in str(caught.value)


def test_what_comes_before_a_break_counts_where_broken_files_are_kept(tmp_path: Path) -> None:
    whole = write(tmp_path, ".arrow").read_bytes()
    (tmp_path / "pool.arrow").write_bytes(whole[:-100])  # of three batches two are left
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(b"{}"))
    (tmp_path / "b.csv").write_bytes(b'instruction,output\na,b\n"')
    sample = sampling.draw((str(tmp_path),), 1000, seed=0, keep_broken_files=True)
    assert sample.num_lines == 301
    assert [json.loads(line) for line in sample.lines] == [
        {"instruction": "a", "output": "b"},
        *ROWS[:300],
    ]


def test_counting_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_BLOCK_BYTES", 1000)
    files = [write(tmp_path, suffix) for suffix in (".jsonl", ".parquet", ".csv")]
    told: list[int] = []
    sampling.draw((str(tmp_path),), 10, seed=0, advance=told.append)
    assert sum(told) == sum(file.stat().st_size for file in files)
    assert len(told) > 20
