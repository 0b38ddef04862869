"""Lines of a pool, counted and drawn without reading them all; against reading them all."""

from __future__ import annotations

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
LINES = [json.dumps(row).encode() for row in ROWS]


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"pool{suffix}"
    if suffix == ".jsonl":
        path.write_bytes(b"\n".join(LINES) + b"\n")
    elif suffix == ".jsonl.gz":
        path.write_bytes(gzip.compress(b"\n".join(LINES)))
    elif suffix == ".json":
        path.write_bytes(b"[" + b",\n".join(LINES) + b"]")
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=150)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".parquet"])
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
    assert len(places) == 60
    assert places == sorted(set(places))
    assert sample == sampling.draw((path,), 60, seed=1)
    assert sample.lines != sampling.draw((path,), 60, seed=2).lines


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".parquet"])
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


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pool.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(PoolError, match=r"pool\.parquet"):
        sampling.draw((str(path),), 10, seed=0)
