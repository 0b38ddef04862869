"""Files to raw rows: which files, which lines, and the raw text byte for byte."""

from __future__ import annotations

import copy
import datetime
import decimal
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from engine import sampling, schema
from engine.errors import BrokenFileError, PoolError
from engine.formats import Turn, to_conversation
from engine.readers import (
    Line,
    Piece,
    PoolFile,
    archive,
    count_lines,
    cut,
    find_files,
    read_lines,
)
from engine.readers.kinds import MAGIC

ROOT = Path(__file__).parents[1]
# A fixture's folder is fine for all examples of a property: each overwrites the one file.
PROPERTY = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def write(path: Path, data: bytes) -> PoolFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return PoolFile(path, path.name)


def read(path: Path, data: bytes) -> list[Line]:
    return lines_of(write(path, data))


def lines_of(file: PoolFile) -> list[Line]:
    (piece,) = cut(file)
    return list(read_lines(piece))


def rows(lines: list[Line]) -> list[tuple[int, str | None]]:
    return [(line.line, line.raw) for line in lines]


def rejects(lines: list[Line]) -> list[tuple[int, str | None, str | None]]:
    return [(line.line, line.reason, line.detail) for line in lines if line.row is None]


def stops(path: Path, data: bytes) -> PoolError:
    file = write(path, data)
    with pytest.raises(PoolError) as caught:
        lines_of(file)
    return caught.value


def until_break(path: Path, data: bytes) -> tuple[list[Line], BrokenFileError]:
    """The lines that come before the file's break, and the break."""
    (piece,) = cut(write(path, data))
    found: list[Line] = []
    with pytest.raises(BrokenFileError) as caught:
        found.extend(read_lines(piece))
    return found, caught.value


# ── which files ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """A folder with every kind of file, known, unknown and hidden."""
    for name in (
        "b.jsonl",
        "a/z.parquet",
        "a/deep/y.jsonl.gz",
        "a/B.JSON",
        "a/notes.txt",
        "a/rows.jsonl.xz",
        ".hidden.jsonl",
        ".cache/c.jsonl",
    ):
        write(tmp_path / "pool" / name, b"")
    return tmp_path / "pool"


def names(*paths: Path | str) -> list[str]:
    return [file.name for file in find_files([str(path) for path in paths])]


def test_a_folder_gives_the_known_files_below_it(pool: Path) -> None:
    assert names(pool) == ["a/B.JSON", "a/deep/y.jsonl.gz", "a/z.parquet", "b.jsonl"]


def test_files_have_absolute_paths(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pool)
    (file,) = find_files(["b.jsonl"])
    assert file == PoolFile(pool.resolve() / "b.jsonl", "b.jsonl")
    assert [file.path for file in find_files(["."])] == [
        pool.resolve() / name
        for name in ("a/B.JSON", "a/deep/y.jsonl.gz", "a/z.parquet", "b.jsonl")
    ]


def test_names_start_at_the_common_folder(pool: Path) -> None:
    assert names(pool / "a") == ["B.JSON", "deep/y.jsonl.gz", "z.parquet"]
    assert names(pool / "a" / "deep") == ["y.jsonl.gz"]
    assert names(pool / "b.jsonl", pool / "a/deep/y.jsonl.gz") == ["a/deep/y.jsonl.gz", "b.jsonl"]


def test_names_do_not_depend_on_where_the_pool_lies(pool: Path) -> None:
    before = names(pool)
    assert names(pool.rename(pool.parent / "elsewhere")) == before


def test_globs(pool: Path) -> None:
    assert names(f"{pool}/*.jsonl") == ["b.jsonl"]
    assert names(f"{pool}/**/*.[jp]*") == names(pool)[1:]  # B.JSON is no match, case counts
    assert names(f"{pool}/*") == names(pool)  # the folder a/ and the file b.jsonl
    assert names(f"{pool}/.cache/*") == ["c.jsonl"]


def test_a_name_that_looks_like_a_glob_is_a_name_if_there_is_such_a_file(tmp_path: Path) -> None:
    write(tmp_path / "rows[1].jsonl", b"")
    assert names(tmp_path / "rows[1].jsonl") == ["rows[1].jsonl"]


def test_each_file_once_and_in_one_order(pool: Path) -> None:
    (pool / "link.jsonl").symlink_to(pool / "b.jsonl")
    paths = [pool, pool / "a" / ".." / "b.jsonl", f"{pool}/*.jsonl", pool / "link.jsonl"]
    assert names(*paths) == names(*reversed(paths)) == names(pool)
    assert names(pool).count("b.jsonl") == 1
    assert "link.jsonl" not in names(pool)


def test_a_link_keeps_its_own_name(tmp_path: Path) -> None:
    blob = write(tmp_path / "blobs" / "0a1b", b'{"prompt": "p", "response": "r"}').path
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "train.jsonl").symlink_to(blob)
    (file,) = find_files([str(tmp_path / "pool" / "train.jsonl")])
    assert file.name == "train.jsonl"
    assert [line.line for line in lines_of(file)] == [1]


def test_paths_that_are_no_pool(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for paths, what in (
        ([], "names no files"),
        ([""], "does not exist"),
        ([str(pool / "missing.jsonl")], "does not exist"),
        ([str(pool / "a/notes.txt")], "suffix"),
        ([str(tmp_path / "empty")], "holds no pool file"),
        ([f"{pool}/*.csv"], "matches no pool file"),
        ([f"{pool}/a/*.txt"], "matches no pool file"),
        (["http://example.org/pool.jsonl"], "is an address"),
        (["s3://bucket/pool.jsonl"], "is an address"),
        (["file:///pool.jsonl"], "is an address"),
        ([str(pool), str(pool / "missing.jsonl")], "does not exist"),
    ):
        with pytest.raises(PoolError, match=what) as caught:
            find_files(paths)
        message = str(caught.value)
        assert [line.split(":")[0] for line in message.splitlines()[1:]] == ["  where", "  fix"]
        assert not paths or not paths[-1] or paths[-1] in message


def test_a_broken_link_is_not_left_out_in_silence(pool: Path) -> None:
    (pool / "gone.jsonl").symlink_to(pool / "nowhere")
    for path in (pool, pool / "gone.jsonl", f"{pool}/*.jsonl"):
        with pytest.raises(PoolError, match=r"no regular file(.|\n)*gone\.jsonl"):
            find_files([str(path)])


def test_a_file_name_that_is_not_utf8(pool: Path) -> None:
    (pool / os.fsdecode(b"\xff.jsonl")).write_bytes(b"")
    with pytest.raises(PoolError, match=r"not valid UTF-8") as caught:
        find_files([str(pool)])
    assert str(caught.value).isascii()


def test_no_permission(pool: Path) -> None:
    (pool / "b.jsonl").chmod(0)
    if os.access(pool / "b.jsonl", os.R_OK):
        pytest.skip("this user, root perhaps, may read everything")
    with pytest.raises(PoolError, match=r"Permission denied(.|\n)*b\.jsonl"):
        lines_of(PoolFile(pool / "b.jsonl", "b.jsonl"))
    (pool / "a").chmod(0)
    try:
        with pytest.raises(PoolError, match=r"cannot be listed: Permission denied"):
            find_files([str(pool)])
    finally:
        (pool / "a").chmod(0o755)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".parquet"])
def test_a_file_that_cannot_be_read(tmp_path: Path, suffix: str) -> None:
    missing = PoolFile(tmp_path / f"missing{suffix}", "missing")
    with pytest.raises(PoolError, match=rf"No such file(.|\n)*missing\{suffix}"):
        lines_of(missing)
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    with pytest.raises(PoolError, match=rf"folder\{suffix}"):
        lines_of(PoolFile(folder, "folder"))


def test_pool_errors_survive_pickling() -> None:
    error = copy.copy(PoolError("what", "there", "do this"))  # which goes the way of pickling
    assert str(error) == "what\n  where: there\n  fix:   do this"
    broken = copy.copy(BrokenFileError("what", "there", "do this", schema.BROKEN_FILE, 7))
    assert (str(broken), broken.reason, broken.line) == (str(error), schema.BROKEN_FILE, 7)


# ── JSON lines ───────────────────────────────────────────────────────────────────────────────────


def test_jsonl_rows_and_line_numbers(tmp_path: Path) -> None:
    data = (
        b'\xef\xbb\xbf{"a": 1}\r\n\n \t\r\n  {"a" : 2} \n{"a": "x\xe2\x80\xa8\xc2\x85y"}\n{"a":3}'
    )
    lines = read(tmp_path / "a.jsonl", data)
    assert rows(lines) == [
        (1, '{"a": 1}'),
        (4, '  {"a" : 2} '),
        (5, '{"a": "x\u2028\x85y"}'),
        (6, '{"a":3}'),
    ]
    assert [line.row for line in lines] == [{"a": 1}, {"a": 2}, {"a": "x\u2028\x85y"}, {"a": 3}]


def test_jsonl_loses_one_carriage_return_and_no_more(tmp_path: Path) -> None:
    lines = read(tmp_path / "a.jsonl", b'{"a": 1}\r\r\n{"a":\r2}\r')
    assert rows(lines) == [(1, '{"a": 1}\r'), (2, '{"a":\r2}')]


def test_jsonl_empty_files(tmp_path: Path) -> None:
    for data in (b"", b"\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n \n"):
        assert read(tmp_path / "a.jsonl", data) == []


def test_jsonl_rejects(tmp_path: Path) -> None:
    good, deep = b'{"a": 1}', b"[" * 100_000 + b"]" * 100_000
    bad = [
        (b'{"a": "SECRET\xff"}', schema.INVALID_UTF8, "byte 14 of the line"),
        (b'{"a": "\xed\xa0\x80"}', schema.INVALID_UTF8, "byte 8 of the line"),
        (b'{"SECRET" 1}', schema.INVALID_JSON, "Expecting ':' delimiter, character 11"),
        (b'{"a": 1} {"b": 2}', schema.INVALID_JSON, "Extra data, character 10"),
        (b"{'SECRET': 1}", schema.INVALID_JSON, None),
        (b'{"a": "SECRET', schema.INVALID_JSON, "Unterminated string starting at, character 7"),
        (b'{"a": "SECRET\tb"}', schema.INVALID_JSON, "Invalid control character at, character 14"),
        (b'{"a": NaN}', schema.INVALID_JSON, "NaN is not JSON"),
        (b'{"a": [-Infinity]}', schema.INVALID_JSON, "-Infinity is not JSON"),
        (deep, schema.INVALID_JSON, "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", schema.INVALID_JSON, "a number is too long"),
        (b"[1]", schema.NOT_AN_OBJECT, "a list"),
        (b'"SECRET"', schema.NOT_AN_OBJECT, "text"),
        (b"null", schema.NOT_AN_OBJECT, "null"),
        (b"7", schema.NOT_AN_OBJECT, "a number"),
        (b"\xef\xbb\xbf{}", schema.INVALID_JSON, None),  # a BOM counts at the file's start only
    ]
    data = b"\n".join([good, *(line + b"\n" + good for line, _, _ in bad)])
    lines = read(tmp_path / "a.jsonl", data)
    assert [line.row for line in lines if line.row is not None] == [{"a": 1}] * (len(bad) + 1)
    found = rejects(lines)
    assert [(line, reason) for line, reason, _ in found] == [
        (2 * at, reason) for at, (_, reason, _) in enumerate(bad, start=1)
    ]
    for (_, _, detail), (_, _, expected) in zip(found, bad, strict=True):
        assert detail is not None
        assert "SECRET" not in detail
        assert detail == (expected or detail)


# What other readers take for numbers, dates or line ends.
NUMBERS = ("007", "1e5", "12345678901234567890", "2024-01-31", "null")
ENDS = ("\x00", "a\x85b\u2028c\x0b\x1c", "\r", "\n", "\ufeff", " ", '"', "\\u0041")
SCRIPTS = ("שלום", "👩‍👩‍👧", "é", "e\u0301", "\u202eabc")
tricky = st.sampled_from([*NUMBERS, *ENDS, *SCRIPTS])
texts = tricky | st.text(st.characters(exclude_categories=["Cs"]))


@PROPERTY
@given(
    pairs=st.lists(st.tuples(texts, texts), max_size=5),
    escape=st.booleans(),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
    archive=st.sampled_from(["", ".gz", ".zst"]),
)
def test_any_text_comes_through_jsonl(
    tmp_path: Path, pairs: list[tuple[str, str]], escape: bool, end: str, archive: str
) -> None:
    raws = [json.dumps({"prompt": p, "response": r}, ensure_ascii=escape) for p, r in pairs]
    data = "".join(raw + end for raw in raws).encode()
    lines = read(tmp_path / f"a.jsonl{archive}", PACK[archive](data))
    assert [line.raw.encode() for line in lines if line.raw is not None] == [
        raw.encode() for raw in raws
    ]
    assert [line.line for line in lines] == [1 + at * end.count("\n") for at in range(len(raws))]
    assert [to_conversation(line.row)[0] for line in lines if line.row is not None] == [
        (Turn("user", p), Turn("assistant", r)) for p, r in pairs
    ]


pieces = st.sampled_from([b'{"a": 1}', b"{", b"}", b"[", b"]", b",", b'"', b"\\", b"NaN", b"\xff"])
blanks = st.sampled_from([b"\n", b"\r\n", b" ", b"\xef\xbb\xbf"])


@PROPERTY
@given(st.lists(pieces | blanks | st.binary(max_size=4), max_size=30).map(b"".join))
def test_rows_and_rejects_are_all_the_lines(tmp_path: Path, data: bytes) -> None:
    expected = [
        (number, line.removesuffix(b"\r"))
        for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
        if line.strip()
    ]
    assume(not data.startswith(tuple(MAGIC)))
    lines = read(tmp_path / "a.jsonl", data)
    assert [line.line for line in lines] == [number for number, _ in expected]
    for line, (_, text) in zip(lines, expected, strict=True):
        if line.raw is not None:
            assert (line.raw.encode(), line.reason, line.detail) == (text, None, None)
            assert line.row == json.loads(text)
        else:
            assert line.row is None
            assert line.reason in schema.REJECT_REASONS
            assert line.detail


# ── pieces ───────────────────────────────────────────────────────────────────────────────────────


def pieced(file: PoolFile, max_bytes: int) -> tuple[list[Line], int]:
    """The lines of all pieces, numbered through, and how many lines the pieces counted."""
    lines: list[Line] = []
    before = 0
    for piece in cut(file, max_bytes):
        lines += [replace(line, line=before + line.line) for line in read_lines(piece)]
        before += count_lines(piece)
    return lines, before


scraps = st.sampled_from(["é", "\u2028", "👩‍👩‍👧", "\r", '{"a": "é"}\r\n', "x" * 50]).map(
    str.encode
)


@PROPERTY
@given(
    start=st.sampled_from([b"", b"\xef\xbb\xbf", b"\n", b"\xef"]),
    data=st.lists(pieces | blanks | scraps | st.binary(max_size=4), max_size=30).map(b"".join),
    max_bytes=st.integers(1, 60),
)
def test_any_cut_gives_the_lines_of_the_whole_file(
    tmp_path: Path, start: bytes, data: bytes, max_bytes: int
) -> None:
    file = write(tmp_path / "a.jsonl", start + data)
    lines, num_lines = pieced(file, max_bytes)
    assert lines == lines_of(file)
    assert num_lines == len((start + data).removesuffix(b"\n").split(b"\n")) * bool(start + data)


def test_a_piece_holds_the_lines_that_start_in_it(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{}\n{"a":"long"}\n\n{}')
    first, second, third, fourth = cut(file, 6)
    assert [(piece.start, piece.end) for piece in cut(file, 6)] == [
        (0, 6),
        (6, 12),
        (12, 18),
        (18, 22),
    ]
    assert rows(list(read_lines(first))) == [(1, "{}")]
    assert rows(list(read_lines(second))) == [(1, '{"a":"long"}')]
    assert rows(list(read_lines(third))) == []
    assert rows(list(read_lines(fourth))) == [(2, "{}")]
    assert [count_lines(piece) for piece in (first, second, third, fourth)] == [1, 1, 0, 2]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl.gz", "a.parquet", "a.JSON"])
def test_files_of_other_kinds_are_not_cut(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, b"[\n{}\n]")
    assert cut(file, 2) == [Piece(file, 0, 6)]
    assert count_lines(Piece(file, 0, 6)) == 0
    assert cut(write(tmp_path / name, b""), 2) == [Piece(file, 0, 0)]


# ── archives ─────────────────────────────────────────────────────────────────────────────────────


def zstd(data: bytes) -> bytes:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "zstd") as stream:
        stream.write(data)
    return packed.getvalue().to_pybytes()


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=1)


PACK = {"": bytes, ".gz": gzipped, ".zst": zstd}
archives = pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzipped), (".zst", zstd)])


@archives
def test_archives_of_several_members(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    data = pack(b'{"a": 1}\n{"a"') + pack(b": 2}\n")
    assert rows(read(tmp_path / f"a.jsonl{suffix}", data)) == [(1, '{"a": 1}'), (2, '{"a": 2}')]


@archives
def test_a_broken_archive_gives_the_rows_before_the_break(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    whole = pack(b'{"a": 1}\n' * 1000)
    for data in (b"", whole[:-3], whole[:5], b'{"a": 1}\n', whole + b"rest"):
        found, error = until_break(path, data)
        assert error.what.startswith("a pool file is not whole ")
        assert error.where == str(path)
        assert (error.reason, error.line) == (schema.BROKEN_FILE, len(found) + 1)


@archives
def test_rows_long_before_the_break_come_through(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    noise = np.random.default_rng(0).bytes(3 * 2**20).hex()
    whole = pack(
        "".join(f'{{"a": "{noise[i : i + 1000]}"}}\n' for i in range(0, len(noise), 1000)).encode()
    )
    found, error = until_break(tmp_path / f"a.jsonl{suffix}", whole[: len(whole) // 2])
    assert 1000 < len(found) == error.line - 1 < 4000


def test_a_wrong_checksum_is_a_break(tmp_path: Path) -> None:
    flipped = bytearray(gzipped(b'{"a": 1}\n' * 1000))
    flipped[-6] ^= 1
    assert until_break(tmp_path / "a.jsonl.gz", bytes(flipped))[1].reason == schema.BROKEN_FILE


@archives
def test_an_archive_that_unpacks_to_too_much(
    tmp_path: Path,
    suffix: str,
    pack: Callable[[bytes], bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archive, "UNPACKED_BYTES", 3 * 2**20)
    small, large = b'{"a": 1}\n' * (2**20 // 9), b" " * 4 * 2**20
    assert len(read(tmp_path / f"a.jsonl{suffix}", pack(small))) == len(small) // 9
    found, error = until_break(tmp_path / f"a.jsonl{suffix}", pack(small + large))
    assert (error.reason, error.line) == (schema.UNSAFE_FILE, len(found) + 1)
    assert "unpacks to more than 3,145,728 bytes" in error.what


def test_an_archive_may_shrink_a_hundredfold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "UNPACKED_BYTES", 0)
    text = "".join(f'{{"a": "{"x" * 60}{number}"}}\n' for number in range(2000)).encode()
    assert 10 < len(text) / len(gzip.compress(text)) < archive.MAX_RATIO
    assert len(read(tmp_path / "a.jsonl.gz", gzip.compress(text))) == 2000


def test_ten_gigabytes_in_ten_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(bytes(10 * 2**20)) * 1000)  # members of 10 MB of zeros
    assert path.stat().st_size < 11 * 10**6
    assert read_elsewhere(path) == {"reasons": [], "refused": schema.UNSAFE_FILE}


@pytest.mark.parametrize("is_nested", [False, True])
def test_ten_gigabytes_in_one_text_of_parquet(tmp_path: Path, is_nested: bool) -> None:
    """It stands there once, and is the value of every row."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 20_480, pa.int32()), ["x" * 500_000])
    columns = {"id": pa.array(range(20_480)), "text": texts}
    if is_nested:
        columns["text"] = pa.ListArray.from_arrays(range(20_481), texts)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path)
    assert path.stat().st_size < 10**6
    assert read_elsewhere(path) == {"reasons": [schema.ROW_TOO_LARGE] * 20_480, "refused": None}


@pytest.mark.parametrize("values", [pa.array([0] * 10**6, pa.int8()), pa.nulls(10**6)])
def test_a_billion_values_in_a_few_bytes_of_parquet(tmp_path: Path, values: pa.Array) -> None:
    path = tmp_path / "a.parquet"
    rows = pa.ListArray.from_arrays([0, len(values)], values)
    with pq.ParquetWriter(path, pa.schema([("list", rows.type)])) as writer:
        for _ in range(300):
            writer.write_table(pa.table({"list": rows}))
    assert path.stat().st_size < 10**6
    assert read_elsewhere(path) == {"reasons": [], "refused": schema.UNSAFE_FILE}


def read_elsewhere(path: Path) -> dict[str, Any]:
    """What comes of a file that wants more memory than there may be, in a new process."""
    command = [sys.executable, "-c", READ_ALL, str(path)]
    read = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(read.stdout)
    assert found.pop("grown_mb") < 600
    return found


READ_ALL = """
import json, resource, sys
from pathlib import Path
from engine.errors import BrokenFileError
from engine.readers import PoolFile, cut, read_lines

def memory_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

file = PoolFile(Path(sys.argv[1]), "a")
reasons, refused, before = [], None, memory_mb()
try:
    for piece in cut(file):
        reasons += [line.reason for line in read_lines(piece, 16_384)]
except BrokenFileError as error:
    refused = error.reason
print(json.dumps({"reasons": reasons, "refused": refused, "grown_mb": memory_mb() - before}))
"""


# ── rows too large, files of another kind ────────────────────────────────────────────────────────


def test_rows_over_the_limit_are_rejected_unread(tmp_path: Path) -> None:
    fits, over = '{"a": "%s"}' % ("é" * 6), '{"a": "%s"}' % ("é" * 7)
    limit = len(fits.encode())
    lines = [fits, over, fits, over * 1000, fits, over]
    expected = [(1, True), (2, False), (3, True), (4, False), (5, True), (6, False)]
    for end in ("\n", "\r\n"):
        file = write(tmp_path / "a.jsonl", ("\ufeff" + end.join(lines)).encode())
        for piece_bytes in (1, 10, 50, 10**6):
            found = [line for piece in cut(file, piece_bytes) for line in read_lines(piece, limit)]
            assert [line.raw is not None for line in found] == [ok for _, ok in expected]
    assert [(line.line, line.raw is not None) for line in read_whole(file, limit)] == expected
    assert {line.reason for line in found if line.raw is None} == {schema.ROW_TOO_LARGE}
    array = write(tmp_path / "a.json", f"[{fits},\n{over}]".encode())
    assert rejects(read_whole(array, limit)) == [
        (2, schema.ROW_TOO_LARGE, f"more than {limit} bytes")
    ]
    pq.write_table(pa.table({"a": ["é" * 6, "é" * 8]}), tmp_path / "a.parquet")
    found = read_whole(PoolFile(tmp_path / "a.parquet", "a.parquet"), limit)
    assert [line.reason for line in found] == [None, schema.ROW_TOO_LARGE]


def read_whole(file: PoolFile, max_row_bytes: int) -> list[Line]:
    (piece,) = cut(file)
    return list(read_lines(piece, max_row_bytes))


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (gzip.compress(b"{}"), "gzip"),
        (zstd(b"{}"), "zstd"),
        (b"PAR1....", "Parquet"),
        (b"PK\x03\x04....", "zip"),
        ('{"a": 1}\n'.encode("utf-16"), "UTF-16"),
        ('\ufeff{"a": 1}\n'.encode("utf-16-be"), "UTF-16"),
    ],
)
def test_files_that_are_not_what_their_name_says(
    tmp_path: Path, suffix: str, data: bytes, kind: str
) -> None:
    file = write(tmp_path / f"a{suffix}", data)
    assert len(cut(file, 1)) == 1  # nobody looks for lines in it
    found, error = until_break(file.path, data)
    assert (found, error.reason, error.line) == ([], schema.WRONG_KIND, 1)
    assert kind in error.fix


def test_a_key_that_comes_twice(tmp_path: Path) -> None:
    bad = ['{"a": 1, "a": 1}', '{"b": [{"c": 1, "d": 2, "c": 3}]}']
    lines = read(tmp_path / "a.jsonl", "\n".join([*bad, '{"a": {"a": 1}}']).encode())
    detail = "a key comes twice in one object"
    assert rejects(lines) == [(at, schema.DUPLICATE_KEY, detail) for at in (1, 2)]
    assert lines[2].row == {"a": {"a": 1}}
    lines = read(tmp_path / "a.json", f'[{bad[0]},\n{{"a": 1}},\n{bad[1]}]'.encode())
    assert [(line.line, line.reason) for line in lines] == [
        (1, schema.DUPLICATE_KEY),
        (2, None),
        (3, schema.DUPLICATE_KEY),
    ]


# ── a JSON array ─────────────────────────────────────────────────────────────────────────────────


def test_json_array(tmp_path: Path) -> None:
    text = '\n[ {"a": 1},{"a"  :\r\n "é"} ,\n\n  3,\n null, {"a": [1, {}]}\n]\n '
    lines = read(tmp_path / "a.json", b"\xef\xbb\xbf" + text.encode())
    assert rows(lines) == [
        (2, '{"a": 1}'),
        (2, '{"a"  :\r\n "é"}'),
        (5, None),
        (6, None),
        (6, '{"a": [1, {}]}'),
    ]
    assert lines[1].row == {"a": "é"}
    assert rejects(lines) == [
        (5, schema.NOT_AN_OBJECT, "a number"),
        (6, schema.NOT_AN_OBJECT, "null"),
    ]


def test_json_empty_array(tmp_path: Path) -> None:
    assert read(tmp_path / "a.json", b" [\n] ") == []


@PROPERTY
@given(
    values=st.lists(texts, max_size=5), indent=st.sampled_from([None, 0, 2]), escape=st.booleans()
)
def test_any_text_comes_through_a_json_array(
    tmp_path: Path, values: list[str], indent: int | None, escape: bool
) -> None:
    text = json.dumps([{"a": value} for value in values], indent=indent, ensure_ascii=escape)
    lines = read(tmp_path / "a.json", text.encode())
    assert [line.row for line in lines] == [{"a": value} for value in values]
    at = 0
    for line in lines:  # every raw is in the document, in order, on the line that is named
        assert line.raw is not None
        at = text.index(line.raw, at)
        assert line.line == text.count("\n", 0, at) + 1
        at += len(line.raw)


@pytest.mark.parametrize(
    ("data", "problem", "place", "fix"),
    [
        (b"", "the file is empty", "line 1, column 1", "mend"),
        (b'[{"a": 1},\n {"b" 2}]', "Expecting ':' delimiter", "line 2, column 7", "mend"),
        (b'[{"a": 1}\n {"b": 2}]', "Expecting ',' or ']'", "line 2, column 2", "mend"),
        (b'[{"a": 1},\n]', "Expecting value", "line 2, column 1", "mend"),
        (b"[,]", "Expecting value", "line 1, column 2", "mend"),
        (b"[", "Expecting value", "line 1, column 2", "mend"),
        (b'[{"a": 1}', "Expecting ',' or ']'", "line 1, column 10", "mend"),
        (b"[]\n\n []", "Extra data after the array", "line 3, column 2", "mend"),
        (b'[{"a": 1},\n {"a": NaN}]', "NaN is not JSON", "line 2, column 2", "mend"),
        (b"[" * 100_000, "nested too deeply", "line 1, column 2", "mend"),
        (b"[" + b"1" * 5000 + b"]", "a number is too long", "line 1, column 2", "mend"),
        (b'{"a": 1} oops', "Extra data", "line 1, column 10", "mend"),
        (b' {"a": [{}]}', "under no key that is known", "line 1, column 2", "as one array"),
        (
            b"7",
            "one array of objects, and this one is a number",
            "line 1, column 1",
            "as one array",
        ),
        (b'["a",\n"\xff"]', "is not valid UTF-8", "line 2", "UTF-8"),
    ],
)
def test_broken_json_array_stops(
    tmp_path: Path, data: bytes, problem: str, place: str, fix: str
) -> None:
    error = stops(tmp_path / "a.json", data)
    assert problem in error.what
    assert error.where == f"{tmp_path / 'a.json'}, {place}"
    assert fix in error.fix


def test_json_array_rows_before_the_break_come_first(tmp_path: Path) -> None:
    (piece,) = cut(write(tmp_path / "a.json", b'[{"a": 1}, {"a"'))
    lines = read_lines(piece)
    assert next(lines).row == {"a": 1}
    with pytest.raises(PoolError):
        next(lines)


def test_line_numbers_of_a_json_array_take_linear_time(tmp_path: Path) -> None:
    def seconds(num: int) -> float:
        file = write(tmp_path / "a.json", json.dumps([{"a": "x" * 50}] * num, indent=1).encode())
        start = time.perf_counter()
        (piece,) = cut(file)
        assert sum(1 for _ in read_lines(piece)) == num
        return time.perf_counter() - start

    small = min(seconds(4_000) for _ in range(3))
    # 8 times the rows: about 8 times the seconds, and 64 times if it were quadratic.
    assert min(seconds(32_000) for _ in range(2)) < 24 * small


# ── Parquet ──────────────────────────────────────────────────────────────────────────────────────


def parquet(path: Path, table: pa.Table, row_group_size: int = 1024) -> list[Line]:
    pq.write_table(table, path, row_group_size=row_group_size)
    return lines_of(PoolFile(path, path.name))


def test_parquet_raw_is_json(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["007", "é\n\x00", None]),
            "number": pa.array([1.5, float("nan"), float("-inf")]),
            "when": pa.array([datetime.datetime(2024, 1, 31, 12, 0, 1)] * 3, pa.timestamp("us")),
            "day": pa.array([datetime.date(2024, 1, 31)] * 3),
            "price": pa.array([decimal.Decimal("1.10")] * 3),
            "blob": pa.array([b"\x00\xff"] * 3),
            "nested": pa.array([[{"x": float("nan")}], [], None]),
        }
    )
    lines = parquet(tmp_path / "a.parquet", table)
    rest = '"when":"2024-01-31T12:00:01","day":"2024-01-31","price":"1.10","blob":"AP8="'
    assert rows(lines) == [
        (1, '{"text":"007","number":1.5,' + rest + ',"nested":[{"x":null}]}'),
        (2, '{"text":"é\\n\\u0000","number":null,' + rest + ',"nested":[]}'),
        (3, '{"text":null,"number":null,' + rest + ',"nested":null}'),
    ]
    assert lines[1].row is not None
    assert lines[1].row["text"] == "é\n\x00"


def test_parquet_row_numbers_run_through_row_groups_and_batches(tmp_path: Path) -> None:
    table = pa.table({"a": list(range(2500))})
    lines = parquet(tmp_path / "a.parquet", table, row_group_size=700)
    assert rows(lines) == [(at + 1, f'{{"a":{at}}}') for at in range(2500)]
    assert parquet(tmp_path / "b.parquet", table.slice(0, 0)) == []


def test_parquet_conversation(tmp_path: Path) -> None:
    # A merged schema: every row has every key, most of them null.
    table = pa.Table.from_pylist(
        [
            {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            {"instruction": "q", "input": "", "output": "a"},
        ],
        schema=pa.schema(
            [
                (
                    "messages",
                    pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
                ),
                ("instruction", pa.large_string()),
                ("input", pa.string()),
                ("output", pa.string()),
            ]
        ),
    )
    found = [to_conversation(line.row or {}) for line in parquet(tmp_path / "a.parquet", table)]
    assert found == [((Turn("user", "q"), Turn("assistant", "a")), schema.OK)] * 2


def test_parquet_text_that_is_not_utf8(tmp_path: Path) -> None:
    cells = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    lines = parquet(tmp_path / "a.parquet", pa.table({"text": cells}))
    assert rows(lines) == [(1, '{"text":"a"}'), (2, None), (3, '{"text":"c"}')]
    assert rejects(lines) == [(2, schema.INVALID_UTF8, "a text cell is not valid UTF-8")]


def test_conversations_in_many_row_groups(tmp_path: Path) -> None:
    made = [{"messages": [{"role": "user", "content": f"q{at}" * 9}]} for at in range(2500)]
    lines = parquet(tmp_path / "a.parquet", pa.Table.from_pylist(made), row_group_size=1000)
    assert [line.row for line in lines] == made


def test_logical_types_without_an_arrow_schema_are_plain(tmp_path: Path) -> None:
    """As other writers leave them."""
    storage = pa.array([b"0123456789abcdef"], pa.binary(16))
    table = pa.table(
        {
            "uuid": pa.ExtensionArray.from_storage(pa.uuid(), storage),
            "json": pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}'])),
        }
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, store_schema=False)
    (line,) = lines_of(PoolFile(path, path.name))
    assert line.row == {"uuid": b"0123456789abcdef", "json": '{"a": 1}'}


class Harmful(pa.ExtensionType):
    """Runs what a file's schema holds, as types of this kind have done."""

    canary: ClassVar[list[bytes]] = []

    def __init__(self) -> None:
        super().__init__(pa.string(), "tests.harmful")

    def __arrow_ext_serialize__(self) -> bytes:
        return b"payload"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> Harmful:
        cls.canary.append(serialized)
        return cls()


@pytest.mark.parametrize("nested", [False, True])
def test_extension_types_are_refused_before_they_run(tmp_path: Path, nested: bool) -> None:
    cells = pa.ExtensionArray.from_storage(Harmful(), pa.array(["a", "b"]))
    column = pa.StructArray.from_arrays([cells], ["inside"]) if nested else cells
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["x", "y"], "other": column}), path)
    refuse_harmful(path)


def refuse_harmful(path: Path) -> None:
    """A file that makes Arrow run code is refused before it does."""
    pa.register_extension_type(Harmful())
    try:
        pq.read_schema(path)
        assert Harmful.canary  # the danger is real
        Harmful.canary.clear()
        found, error = until_break(path, path.read_bytes())
    finally:
        pa.unregister_extension_type("tests.harmful")
    assert Harmful.canary == []
    assert (found, error.reason) == ([], schema.UNSAFE_FILE)


def test_no_footer_hides_extension_types(tmp_path: Path) -> None:
    """Readers pass over what they do not know, so anything may stand between key and value."""
    path = tmp_path / "a.parquet"
    cells = pa.ExtensionArray.from_storage(Harmful(), pa.array(["a", "b"]))
    pq.write_table(pa.table({"text": cells}), path)
    whole = path.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    body, footer = whole[: -8 - length], whole[-8 - length : -8]
    key, value = footer.split(b"ARROW:schema\x18")  # the value is field 2 of type 8: binary
    unknown = b"\x28" + bytes([40]) + b"~" * 40  # field 3, binary
    altered = key + b"ARROW:schema" + unknown + b"\x08\x04" + value  # field 2, its number in full
    path.write_bytes(body + altered + len(altered).to_bytes(4, "little") + b"PAR1")
    refuse_harmful(path)


@pytest.mark.parametrize(
    "table",
    [
        pa.table([["a"], ["b"]], names=["response", "response"]),
        pa.table([pa.StructArray.from_arrays([pa.array(["a"])] * 2, ["b", "b"])], names=["a"]),
    ],
    ids=["columns", "fields"],
)
def test_parquet_names_that_come_twice(tmp_path: Path, table: pa.Table) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    found, error = until_break(path, path.read_bytes())
    assert (found, error.reason) == ([], schema.BROKEN_FILE)
    assert error.what.endswith(("columns 'response'", "columns 'b'"))


def test_any_schema_that_is_plain_is_read(tmp_path: Path) -> None:
    # Lengths of schemas take all values here, and with them what stands before the base64.
    for num in range(1, 40):
        table = pa.table({f"column-{'x' * num}-{at}": ["a"] for at in range(num)})
        assert len(parquet(tmp_path / "a.parquet", table)) == 1


class Keys(pe.KmsClient):
    """Wraps keys by showing them."""

    def wrap_key(self, key_bytes: bytes, master_key_identifier: str) -> bytes:
        return key_bytes.hex().encode()

    def unwrap_key(self, wrapped_key: bytes, master_key_identifier: str) -> bytes:
        return bytes.fromhex(wrapped_key.decode())


@pytest.mark.parametrize("plain_footer", [False, True])
def test_encrypted_parquet_stops(tmp_path: Path, plain_footer: bool) -> None:
    path = tmp_path / "a.parquet"
    keys = pe.CryptoFactory(lambda _: Keys()).file_encryption_properties(
        pe.KmsConnectionConfig(),
        pe.EncryptionConfiguration(
            "footer", column_keys={"a": ["a"]}, plaintext_footer=plain_footer
        ),
    )
    table = pa.table({"a": ["text"]})
    with pq.ParquetWriter(path, table.schema, encryption_properties=keys) as writer:
        writer.write_table(table)
    _, error = until_break(path, path.read_bytes())
    assert (error.reason, error.line) == (schema.BROKEN_FILE, 1)
    assert "crypt" in error.what


def test_broken_parquet_stops(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": ["text"] * 5000}), path, use_dictionary=False, compression="NONE")
    whole = path.read_bytes()
    for data in (b"", b'{"a": 1}\n', whole[:-20], whole[: len(whole) // 2]):
        error = stops(path, data)
        assert error.what.startswith("a pool file is not readable Parquet: ")
        assert error.where == f"{path}, after row 0"


@pytest.mark.parametrize("named", ["", "*.jsonl", "../pool/**/*.jsonl"])
def test_a_link_that_leads_out_of_the_pool_is_refused(tmp_path: Path, named: str) -> None:
    """A stranger's folder may point anywhere; a link that is named itself is meant."""
    pool = tmp_path / "pool"
    pool.mkdir()
    secret = tmp_path / "secret.jsonl"
    secret.write_text("{}\n")
    (pool / "innocent.jsonl").symlink_to(secret)
    with pytest.raises(PoolError, match=r"a link leads out of(.|\n)*secret\.jsonl(.|\n)*name the"):
        find_files([f"{pool}/{named}"])
    (named_itself,) = find_files([str(pool / "innocent.jsonl")])
    assert named_itself.path.name == "innocent.jsonl"


@pytest.mark.parametrize("named", ["*", "**/*.jsonl", "link/*.jsonl"])
def test_a_linked_folder_leads_out_as_well(tmp_path: Path, named: str) -> None:
    write(tmp_path / "elsewhere" / "secret.jsonl", b"{}")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "link").symlink_to(tmp_path / "elsewhere")
    if named.startswith("link"):  # the link itself is named
        assert names(f"{tmp_path}/pool/{named}") == ["secret.jsonl"]
        return
    with pytest.raises(PoolError, match="a link leads out of"):
        find_files([f"{tmp_path}/pool/{named}"])


@pytest.mark.parametrize("named", ["", "*", "data", "data/*.parquet", "**/*.parquet"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_snapshot_where_the_hub_puts_it(tmp_path: Path, named: str, shared: bool) -> None:
    """Its links lead to blobs beside the snapshots, or to those that all share."""
    whole = tmp_path / "datasets--x--y"
    blobs = (tmp_path if shared else whole) / "blobs"
    blobs.mkdir(parents=True)
    pq.write_table(pa.table({"prompt": ["q"], "response": ["a"]}), blobs / "0f3a")
    data = whole / "snapshots" / "c0ffee" / "data"
    data.mkdir(parents=True)
    (data / "train-00000-of-00001.parquet").symlink_to(blobs / "0f3a")
    (file,) = find_files([f"{data.parent}/{named}"])
    assert file.name == "train-00000-of-00001.parquet"
    assert rows(lines_of(file)) == [(1, '{"prompt":"q","response":"a"}')]
    (data / "innocent.jsonl").symlink_to(write(tmp_path / "secret.jsonl", b"{}").path)
    if not named.endswith(".parquet"):
        with pytest.raises(PoolError, match="a link leads out of"):
            find_files([f"{data.parent}/{named}"])


DATES = {
    "ms": (
        pa.array([0, 10**17], pa.timestamp("ms")),
        '"1970-01-01T00:00:00"',
        "100000000000000000",
    ),
    "day": (pa.array([0, 10**7], pa.date32()), '"1970-01-01"', "10000000"),
    "for": (pa.array([1, 2**62], pa.duration("s")), '"0:00:01"', str(2**62)),
    "zone": (pa.array([0, 1], pa.timestamp("ms", "Mars/Base")), "0", "1"),
    "in": (
        pa.array([{"x": [0]}, {"x": [10**17]}], pa.struct([("x", pa.list_(pa.timestamp("ms")))])),
        '{"x":["1970-01-01T00:00:00"]}',
        '{"x":[100000000000000000]}',
    ),
}


@pytest.mark.parametrize("kind", DATES)
@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_dates_that_python_cannot_hold_are_numbers(tmp_path: Path, kind: str, suffix: str) -> None:
    values, first, second = DATES[kind]
    table = pa.table({"prompt": ["q", "r"], "at": values})
    path = tmp_path / f"a{suffix}"
    if suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(str(path), table.schema) as stream:
            stream.write_table(table)
    expected = [f'{{"prompt":"q","at":{first}}}', f'{{"prompt":"r","at":{second}}}']
    assert [line.raw for line in lines_of(PoolFile(path, path.name))] == expected
    sample = sampling.draw((str(path),), 10, seed=1)
    assert [line.decode() for line in sample.lines] == expected
