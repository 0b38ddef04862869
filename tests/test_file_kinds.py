"""Kinds of files: what each becomes, what is refused and why, and which files are meant."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_readers import (
    PROPERTY,
    READ_ALL,
    ROOT,
    Harmful,
    lines_of,
    names,
    pieced,
    read,
    rejects,
    rows,
    texts,
    until_break,
    write,
    zstd,
)

from engine import schema
from engine.errors import PoolError
from engine.readers import PoolFile, count_lines, cut, find_files, read_lines, remarks
from engine.readers.kinds import Kind, are_lines, kind_of, wrong_kind

# ── what a name says ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", Kind("lines")),
        ("a.NDJSON", Kind("lines")),
        ("a.jsonlines", Kind("lines")),
        ("a.jl", Kind("lines")),
        ("a.jsonl.gz", Kind("lines", "gzip")),
        ("a.json", Kind("json")),
        ("a.json.zst", Kind("json", "zstd")),
        ("a.csv", Kind("csv")),
        ("a.b.tsv.gz", Kind("tsv", "gzip")),
        ("a.parquet", Kind("parquet")),
        ("a.arrow", Kind("arrow")),
        ("a.feather", Kind("arrow")),
        ("a.parquet.gz", None),
        ("a.gz", None),
        ("a.txt", None),
        ("json", None),
    ],
)
def test_what_a_name_says(name: str, kind: Kind | None) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("a.xlsx", "save the sheet as CSV"),
        ("a.txt", "rename it to .jsonl"),
        ("a.jsonl.xz", "unpack it"),
        ("a.tar.gz", "unpack it and name the folder"),
        ("a.pkl", "can run code"),
        ("a.odd", "convert it"),
    ],
)
def test_what_to_do_about_other_files(tmp_path: Path, name: str, fix: str) -> None:
    with pytest.raises(PoolError, match=fix):
        find_files([str(write(tmp_path / name, b"").path)])


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet", ".arrow", ".jsonl.gz"])
@pytest.mark.parametrize(
    ("data", "fix"),
    [
        (LFS, "a Git LFS pointer, not the data: git lfs pull fetches them"),
        (b"<!DOCTYPE html>\n<html>Sign in</html>", "a web page"),
        (b"\n  <html lang='en'>", "a web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page"),
        (b"BZh91AY", "bzip2"),
        (b"\x80\x04\x95\x00", "pickle"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, suffix: str, data: bytes, fix: str) -> None:
    found, error = until_break(tmp_path / f"a{suffix}", data)
    assert (found, error.reason, error.line) == ([], schema.WRONG_KIND, 1)
    assert fix in error.fix
    assert fix in error.what  # which is what the list of rejects shows


def test_no_kind_is_taken_for_another() -> None:
    assert wrong_kind(b"PAR1", Kind("parquet")) is None
    assert wrong_kind(b"ARROW1", Kind("parquet")) == "Arrow, so its name must end in .arrow"
    assert wrong_kind(b"\xff\xff\xff\xff\x00", Kind("arrow")) is None
    assert wrong_kind(b"\x1f\x8b", Kind("lines", "gzip")) is None
    assert "gzip" in str(wrong_kind(b"\x1f\x8b", Kind("csv")))
    assert wrong_kind(b"version,https", Kind("csv")) is None


# ── JSON lines in a .json file ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}\n{"a": 2}', True),
        ('\ufeff\n {"a": 1}\r\n\r\n{"a"', True),
        ('{"a"\n{"a": 1}\n{"a": 2}', True),  # its first line is broken
        ('{"a": 1}\n[2]', True),
        ('{"data": [\n{"a": 1}\n,\n{"a": 2}\n]}', False),
        ('{"data":\n{"a": 1}\n}', False),
        ('{"a": 1}', False),
        ('{"a": 1}\n', False),
        ('{"data": [\n{"a": 1}\n]}', False),
        ('{"data": [\n{"a": 1},\n{"a": 2}\n]}', False),
        ('{\n"a": {"b": 1},\n"c": {"b": 1}\n}', False),
        ('[{"a": 1}]\n{"a": 2}', False),
        ('{"a": 1} {"a": 2}', False),
        ("", False),
    ],
)
def test_which_json_files_are_lines(text: str, expected: bool) -> None:
    assert are_lines(text.encode().splitlines(keepends=True)) is expected


def test_json_lines_in_a_json_file(tmp_path: Path) -> None:
    text = b'\xef\xbb\xbf{"a": 1}\r\n\n{"a"\n{"a": 2}\n[3]\n{"a": "\xff"}\n{"a": 4}'
    for name in ("a.json", "a.jsonl"):
        file = write(tmp_path / name, text)
        lines = lines_of(file)
        assert rows([line for line in lines if line.row]) == [
            (1, '{"a": 1}'),
            (4, '{"a": 2}'),
            (7, '{"a": 4}'),
        ]
        assert [line.reason for line in lines if not line.row] == [
            schema.INVALID_JSON,
            schema.NOT_AN_OBJECT,
            schema.INVALID_UTF8,
        ]
        for max_bytes in (1, 7, 30):
            assert len(cut(file, max_bytes)) > 1
            assert pieced(file, max_bytes) == (lines, 7)
    packed = read(tmp_path / "a.json.gz", gzip.compress(text))
    assert packed == lines


@PROPERTY
@given(values=st.lists(texts, min_size=2, max_size=6), size=st.integers(1, 60))
def test_any_cut_of_json_lines_in_a_json_file(tmp_path: Path, values: list[str], size: int) -> None:
    text = "\n".join(json.dumps({"a": value}, ensure_ascii=False) for value in values)
    lines, num_lines = pieced(write(tmp_path / "a.json", text.encode()), size)
    assert [line.row for line in lines] == [{"a": value} for value in values]
    assert num_lines == len(values)


def test_a_large_json_file_of_lines_is_never_held_whole(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", b'{"a": "%s"}\n' % (b"x" * 1000) * 200)
    pieces = cut(file, 50_000)
    assert [(piece.start, piece.end) for piece in pieces[:2]] == [(0, 50_000), (50_000, 100_000)]
    assert sum(len(list(read_lines(piece))) for piece in pieces) == 200


@pytest.mark.parametrize(
    "text",
    [
        '{"data": [{"a": 1},\n {"a": 2}]}',
        '\n{"version": "1.1", "data": [{"a": 1},\n{"a": 2} ] , "n": {"data": [{}]}}\n',
        '{"train":\n[ {"a": 1}, {"a": 2}], "test": []}',
    ],
)
def test_an_object_around_the_rows(tmp_path: Path, text: str) -> None:
    lines = read(tmp_path / "a.json", text.encode())
    assert [line.raw for line in lines] == ['{"a": 1}', '{"a": 2}']
    places = [text.index(raw) for raw in ('{"a": 1}', '{"a": 2}')]
    assert [line.line for line in lines] == [text.count("\n", 0, at) + 1 for at in places]
    assert read(tmp_path / "a.json.zst", zstd(text.encode())) == lines


@pytest.mark.parametrize(
    "text",
    [
        '{"prompt": "p", "response": "r"}',
        '\n{\n  "prompt": "p",\n  "tags": [1, 2]\n}\n',
        '{"messages": [{"role": "user"}]}',
        '{"prompt": "q", "response": "a", "examples": [{"x": 1}]}',
        '{"messages": [{"role": "user", "content": "q"}], "data": [{"x": 1}], "test": [{}]}',
    ],
)
def test_one_object_may_be_one_row(tmp_path: Path, text: str) -> None:
    (line,) = read(tmp_path / "a.json", text.encode())
    assert line.raw == text.strip()
    assert line.line == 1 + text.startswith("\n")


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ('{"train": [{"a": 1}], "test": [{"a": 2}]}', "several keys: train, test", ".train[]"),
        ('{"train": [{"a": 1}], "dev": [{"a": 2}]}', "several keys: train, dev", ".train[]"),
        ('{"valid": [{"a": 1}], "train": [{"a": 2}]}', "several keys: valid, train", ".valid[]"),
        ('{"data": [{"a": 1}], "more": [{"a": 2}]}', "several keys: data, more", ".data[]"),
        ('{"prompt": 1, "v": "1", "data": [{}], "x": [{}]}', "several keys: data, x", "jq"),
        ('{"instruction": {"0": "x"}, "output": {"0": "y"}}', "no key", "orient='records'"),
        ('{"instruction": ["x"], "output": ["y"]}', "no key", "orient='records'"),
        ('{"data": [{"a": 1}], }', "Expecting property name", "mend"),
        ('{"data": [{"a": 1}] "b": 1}', "Expecting ',' delimiter", "mend"),
        ('{"data" [{"a": 1}]}', "Expecting ':' delimiter", "mend"),
        ('{"data": [{"a": 1}', "Expecting ',' or ']'", "mend"),
        ('{"data": [{"a": 1}]} {"b": 1}', "Extra data", "mend"),
        ("{}", "no key", "as one array"),
    ],
)
def test_objects_that_are_no_pool(tmp_path: Path, text: str, what: str, fix: str) -> None:
    found, error = until_break(tmp_path / "a.json", text.encode())
    assert (found, error.reason) == ([], schema.BROKEN_FILE)
    assert what in error.what
    assert fix in error.fix


# ── CSV and TSV ──────────────────────────────────────────────────────────────────────────────────


def test_csv(tmp_path: Path) -> None:
    text = (
        "\ufeffinstruction, output ,\r\n"
        'a,"x, ""y""\nz",1\r\n'
        "\r\n"
        ",007,\n"
        "too,few\n"
        "one,too,many,here\n"
        '5" pipe,\u2028é\x00,null'
    )
    lines = read(tmp_path / "a.csv", text.encode())
    assert rows(lines) == [
        (2, '{"instruction":"a","output":"x, \\"y\\"\\nz","unnamed_3":"1"}'),
        (5, '{"instruction":"","output":"007","unnamed_3":""}'),
        (6, None),
        (7, None),
        (8, '{"instruction":"5\\" pipe","output":"\u2028é\\u0000","unnamed_3":"null"}'),
    ]
    assert rejects(lines) == [
        (6, schema.RAGGED_ROW, "2 fields, and the header has 3"),
        (7, schema.RAGGED_ROW, "4 fields, and the header has 3"),
    ]
    for name, data in (("a.csv.gz", gzip.compress), ("a.csv.zst", zstd)):
        assert read(tmp_path / name, data(text.encode())) == lines


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "p\tr\na,b\tc;d\n"),
        ("a.csv", "p;r\na,b;c;d\n".replace("c;d", '"c;d"')),
        ("a.csv", "p\tr\na,b\tc;d\n"),
    ],
)
def test_what_separates(tmp_path: Path, name: str, text: str) -> None:
    (line,) = read(tmp_path / name, text.encode())
    assert line.row == {"p": "a,b", "r": "c;d"}


@PROPERTY
@given(
    table=st.lists(st.tuples(texts, texts), max_size=5),
    end=st.sampled_from(["\n", "\r\n"]),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_any_text_comes_through_csv(
    tmp_path: Path, table: list[tuple[str, str]], end: str, mark: str
) -> None:
    doubled = [[text.replace('"', '""') for text in row] for row in (("p", "r"), *table)]
    quoted = [f'"{first}","{second}"' for first, second in doubled]
    text = mark + "".join(row + end for row in quoted)
    lines = read(tmp_path / "a.csv", text.encode())
    assert [line.row for line in lines] == [{"p": p, "r": r} for p, r in table]
    starts = [1 + sum(row.count("\n") + 1 for row in quoted[:at]) for at in range(len(quoted))]
    assert [line.line for line in lines] == starts[1:]


def test_csv_rows_that_are_too_large_or_no_text(tmp_path: Path) -> None:
    long, short, high = "é" * 60, "é" * 30, "z\n" * 60
    text = f'a,b\nx,{long}\n"{high}\n",y\nfits,"{short}"\n'
    file = write(tmp_path / "a.csv", text.encode() + b"\xff,x\nlast,1\n")
    (piece,) = cut(file)
    lines = list(read_lines(piece, 100))
    assert [(line.line, line.reason) for line in lines] == [
        (2, schema.ROW_TOO_LARGE),
        (3, schema.ROW_TOO_LARGE),
        (65, None),
        (66, schema.INVALID_UTF8),
        (67, None),
    ]
    assert lines[-1].row == {"a": "last", "b": "1"}
    assert count_lines(piece) == 0


@pytest.mark.parametrize(
    ("data", "line", "what"),
    [
        (b"", 1, "it is empty"),
        (b"\n \n", 1, "it is empty"),
        (b"a,b,a\n1,2,3\n", 1, "several columns 'a'"),
        (b"Say something about " + b"x" * 100 + b",yes\n", 1, "does not begin with a header"),
        (b'"a\nb",c\n', 1, "its header cannot be read"),
        (b"\xff,b\n", 1, "not valid UTF-8"),
        (b'a,b\n1,2\n"x,y\n3,4\n', 3, "in the row that begins in line 3"),
        (b'a,b\n1,2\n"x"y,z\n3,4\n', 3, "in the row that begins in line 3"),
        (b'a,b\n1,2\n"' + b"x\n" * 200, 3, "a quote is never closed"),
        (b"a,b\n1,2\r3,4\r5,6\n", 2, "new-line character"),
    ],
)
def test_broken_csv(tmp_path: Path, data: bytes, line: int, what: str) -> None:
    (piece,) = cut(write(tmp_path / "a.csv", data))
    found, error = until_break(tmp_path / "a.csv", data)
    assert (error.reason, error.line) == (schema.BROKEN_FILE, line)
    assert what in error.what
    assert [each.row for each in found] == [{"a": "1", "b": "2"}] * (line == 3)
    if b"x\nx\n" in data:  # and with a limit it takes no more memory than that
        with pytest.raises(PoolError, match="a quote is never closed"):
            list(read_lines(piece, 100))


def test_a_header_alone_is_a_table_without_rows(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", b"instruction,output\n") == []


# ── Arrow ────────────────────────────────────────────────────────────────────────────────────────

Make = Callable[..., Any]
ways = pytest.mark.parametrize("make", [pa.ipc.new_file, pa.ipc.new_stream])


def arrow(path: Path, make: Make, table: pa.Table, rows: int = 100, **options: Any) -> PoolFile:
    with make(str(path), table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=rows)
    return PoolFile(path, path.name)


@ways
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_arrow(tmp_path: Path, make: Make, compression: str | None) -> None:
    turns = [{"role": "user", "content": "é"}, {"role": None, "content": ""}]
    table = pa.table(
        {
            "messages": [turns, None, []] * 100,
            "kind": pa.array(["x", "y", None] * 100).dictionary_encode(),
            "view": pa.array(["a", None, "longer than what a view holds"] * 100, pa.string_view()),
            "number": [1.5, None, 2.0] * 100,
        }
    )
    lines = lines_of(arrow(tmp_path / "a.arrow", make, table, 70, compression=compression))
    assert [line.row for line in lines] == table.to_pylist()
    assert [line.line for line in lines] == list(range(1, 301))
    assert lines[0].raw == (
        '{"messages":[{"role":"user","content":"é"},{"role":null,"content":""}],'
        '"kind":"x","view":"a","number":1.5}'
    )


@ways
def test_extension_types_in_arrow_are_refused_before_they_run(tmp_path: Path, make: Make) -> None:
    cells = pa.ExtensionArray.from_storage(Harmful(), pa.array(["a", "b"]))
    for column in (cells, pa.StructArray.from_arrays([cells], ["inside"])):
        file = arrow(tmp_path / "a.arrow", make, pa.table({"text": ["x", "y"], "other": column}))
        pa.register_extension_type(Harmful())
        try:
            if make is pa.ipc.new_stream:
                pa.ipc.open_stream(str(file.path)).close()
                assert Harmful.canary  # the danger is real
                Harmful.canary.clear()
            found, error = until_break(file.path, file.path.read_bytes())
        finally:
            pa.unregister_extension_type("tests.harmful")
        assert Harmful.canary == []
        assert (found, error.reason) == ([], schema.UNSAFE_FILE)


@ways
def test_arrow_names_that_come_twice(tmp_path: Path, make: Make) -> None:
    file = arrow(tmp_path / "a.arrow", make, pa.table([["a"], ["b"]], names=["r", "r"]))
    found, error = until_break(file.path, file.path.read_bytes())
    assert (found, error.reason) == ([], schema.BROKEN_FILE)
    assert error.what.endswith("columns 'r'")


def test_an_arrow_stream_that_was_cut_short(tmp_path: Path) -> None:
    """Even between two batches, which Arrow takes for its end."""
    table = pa.table({"a": [f"{at:04d}" for at in range(300)]})
    whole = arrow(tmp_path / "a.arrow", pa.ipc.new_stream, table).path.read_bytes()
    assert whole.endswith(b"\xff\xff\xff\xff\0\0\0\0")
    with pa.ipc.open_stream(pa.BufferReader(whole[:-8])) as stream:
        assert stream.read_all() == table  # without a word
    for data, num in (
        (whole[:-8], 300),
        (whole[:-4], 300),
        (whole[:-9], 200),
        (whole[: -len(whole) // 4], 200),
        (whole + b"more", 300),
    ):
        found, error = until_break(tmp_path / "a.arrow", data)
        assert [line.row for line in found] == table.to_pylist()[: len(found)]
        assert (error.reason, error.line) == (schema.BROKEN_FILE, len(found) + 1)
        assert len(found) == num
    for data in (b"", b"ARROW1", whole[:20], b'{"a": 1}\n', b"\xff\xff\xff\xff\0\0\0\0"):
        found, error = until_break(tmp_path / "a.arrow", data)
        assert (found, error.reason, error.line) == ([], schema.BROKEN_FILE, 1)
    file = arrow(tmp_path / "b.arrow", pa.ipc.new_file, table).path.read_bytes()
    found, error = until_break(tmp_path / "b.arrow", file[:-20])
    assert (found, error.reason) == ([], schema.BROKEN_FILE)


@PROPERTY
@given(
    changes=st.lists(st.tuples(st.integers(0, 1500), st.integers(0, 255)), min_size=1, max_size=6),
    is_file=st.booleans(),
)
def test_damaged_arrow_never_brings_the_process_down(
    tmp_path: Path, changes: list[tuple[int, int]], is_file: bool
) -> None:
    table = pa.table({"a": ["text", None], "b": [[{"c": "x"}], []], "d": [1, 2]})
    make = pa.ipc.new_file if is_file else pa.ipc.new_stream
    data = bytearray(arrow(tmp_path / "a.arrow", make, table).path.read_bytes())
    for place, new in changes:
        data[place % len(data)] = new
    file = write(tmp_path / "a.arrow", bytes(data))
    try:
        for line in lines_of(file):
            assert (line.raw is None) == (line.reason is not None)
    except PoolError as error:
        assert str(error)  # noqa: PT017  either is fine, nothing else is


def read_elsewhere(path: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", READ_ALL, str(path)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = json.loads(made.stdout)
    assert found.pop("grown_mb") < 600
    return found


def test_ten_gigabytes_in_one_text_of_arrow(tmp_path: Path) -> None:
    """It stands there once, and is the value of every row."""
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 20_480, pa.int32()), ["x" * 500_000])
    file = arrow(tmp_path / "a.arrow", pa.ipc.new_stream, pa.table({"text": texts}), 20_480)
    assert file.path.stat().st_size < 10**6
    assert read_elsewhere(file.path) == {
        "reasons": [schema.ROW_TOO_LARGE] * 20_480,
        "refused": None,
    }


@pytest.mark.parametrize("kind", ["nulls", "zeros", "list"])
def test_a_billion_values_in_a_few_bytes_of_arrow(tmp_path: Path, kind: str) -> None:
    column = {
        "nulls": pa.nulls(10**9),
        "zeros": pa.array([0], pa.int8()).take(pa.array([0] * 10**6)),
        "list": pa.ListArray.from_arrays(pa.array([0, 10**9], pa.int32()), pa.nulls(10**9)),
    }[kind]
    table = pa.table({"a": pa.chunked_array([column] * (300 if kind == "zeros" else 1))})
    path = tmp_path / "a.arrow"
    arrow(path, pa.ipc.new_stream, table, 10**9, compression="zstd")
    assert path.stat().st_size < 10**6
    assert read_elsewhere(path) == {"reasons": [], "refused": schema.UNSAFE_FILE}


def test_a_buffer_that_asks_for_a_terabyte(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    table = pa.table({"a": ["x" * 1000]})
    data = arrow(path, pa.ipc.new_stream, table, compression="zstd").path.read_bytes()
    asked = struct.pack("<q", 1000)
    assert data.count(asked) >= 1
    at = data.rindex(asked)
    path.write_bytes(data[:at] + struct.pack("<q", 2**40) + data[at + 8 :])
    found, error = until_break(path, path.read_bytes())
    assert (found, error.reason) == ([], schema.UNSAFE_FILE)


def test_offsets_that_lead_out_of_a_buffer(tmp_path: Path) -> None:
    """Arrow takes a file's offsets as they are, and would read whatever lies there."""
    table = pa.table({"a": ["abc", "de"]})
    path = tmp_path / "a.arrow"
    data = arrow(path, pa.ipc.new_stream, table).path.read_bytes()
    offsets = struct.pack("<iii", 0, 3, 5)
    at = data.index(offsets)
    path.write_bytes(data[:at] + struct.pack("<iii", 0, 3, 2**30) + data[at + 12 :])
    found, error = until_break(path, path.read_bytes())
    assert (found, error.reason, error.line) == ([], schema.BROKEN_FILE, 1)


# ── folders ──────────────────────────────────────────────────────────────────────────────────────

ROW = pa.table({"instruction": ["Name a tree"], "output": ["Oak"]})


def saved(folder: Path, num: int = 2, **state: object) -> Path:
    """What save_to_disk leaves, and results that were cached beside it."""
    folder.mkdir(parents=True)
    files = [f"data-{at:05d}-of-{num:05d}.arrow" for at in range(num)]
    for name in (*files, "cache-0123.arrow", "indices-0.arrow", "data-of-old.arrow"):
        arrow(folder / name, pa.ipc.new_stream, ROW)
    state = {"_data_files": [{"filename": name} for name in files], **state}
    write(folder / "state.json", json.dumps(state).encode())
    write(folder / "dataset_info.json", b'{"features": {}}')
    return folder


def test_a_saved_data_set(tmp_path: Path) -> None:
    folder = saved(tmp_path / "ds", _indices_data_files=[], _split="train")
    expected = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    assert names(folder) == names(f"{folder}/*") == names(f"{folder}/*.arrow") == expected
    assert names(f"{tmp_path}/*") == expected
    assert names(folder / "cache-0123.arrow") == ["cache-0123.arrow"]  # named itself
    assert [line.row for file in find_files([str(folder)]) for line in lines_of(file)] == [
        {"instruction": "Name a tree", "output": "Oak"}
    ] * 2


def test_saved_data_sets_of_several_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        saved(tmp_path / "ds" / split, 1)
    write(tmp_path / "ds" / "dataset_dict.json", b'{"splits": ["train", "test"]}')
    file = "data-00000-of-00001.arrow"
    assert names(tmp_path / "ds") == [f"test/{file}", f"train/{file}"]
    assert names(tmp_path / "ds" / "train") == [file]
    (tmp_path / "ds" / "train").rename(tmp_path / "elsewhere")
    with pytest.raises(PoolError, match=r"a split that dataset_dict\.json names is missing"):
        names(tmp_path / "ds")


@pytest.mark.parametrize(
    ("state", "what"),
    [
        ({"_indices_data_files": [{"filename": "indices-0.arrow"}]}, "flatten_indices"),
        ({"_indices_files": [{"filename": "indices-0.arrow"}]}, "flatten_indices"),
        ({"_data_files": [{"filename": "../secret.arrow"}]}, "no file of its folder"),
        ({"_data_files": [{"filename": "/etc/passwd.arrow"}]}, "no file of its folder"),
        ({"_data_files": [{"filename": ".."}]}, "no file of its folder"),
        ({"_data_files": [{"name": "a.arrow"}]}, "no file of its folder"),
        ({"_data_files": ["a.arrow"]}, "no file of its folder"),
        ({"_data_files": [{"filename": "data-00002-of-00003.arrow"}]}, "is missing"),
    ],
)
def test_saved_data_sets_that_are_refused(
    tmp_path: Path, state: dict[str, object], what: str
) -> None:
    folder = saved(tmp_path / "ds", **state)
    for named in (folder, f"{folder}/*.arrow", tmp_path):
        with pytest.raises(PoolError, match=what):
            names(named)


def test_a_link_in_a_saved_data_set_leads_nowhere_else(tmp_path: Path) -> None:
    folder = saved(tmp_path / "ds", 1)
    file = folder / "data-00000-of-00001.arrow"
    file.rename(tmp_path / "secret.arrow")
    file.symlink_to(tmp_path / "secret.arrow")
    with pytest.raises(PoolError, match="a link leads out of"):
        names(folder)


def test_a_state_json_of_something_else_plays_no_part(tmp_path: Path) -> None:
    arrow(tmp_path / "a.arrow", pa.ipc.new_stream, ROW)
    for state in (b"[1]", b"{", b'{"step": 3}', b'{"_data_files": null}'):
        write(tmp_path / "state.json", state)
        assert names(tmp_path) == ["a.arrow"]


def test_a_hub_snapshot(tmp_path: Path) -> None:
    for name in (
        *("dataset_infos.json", "README.md", ".gitattributes", "metadata.json"),
        *("data/train-00000-of-00001.parquet", "config.json", "rows.json"),
    ):
        write(tmp_path / name, b"{}")
    expected = ["data/train-00000-of-00001.parquet", "rows.json"]
    assert names(tmp_path) == names(f"{tmp_path}/*") == names(f"{tmp_path}/**") == expected
    assert names(f"{tmp_path}/*.json") == ["rows.json"]
    assert names(tmp_path / "dataset_infos.json") == ["dataset_infos.json"]
    (tmp_path / "rows.json").unlink()
    with pytest.raises(PoolError, match="those about a data set are left out"):
        names(f"{tmp_path}/*.json")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["train.jsonl", "more.jsonl"], []),
        (["test.jsonl"], []),
        (["valid_json.jsonl", "train_of_thought.jsonl", "math/dev-ops.jsonl"], []),
        (["train-0.jsonl", "dev.jsonl.gz"], ["train (1 file), validation (1 file)"]),
        (["latest.jsonl", "training.jsonl", "contest.jsonl"], []),
        (
            ["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"],
            ["test (1 file), train (1 file)"],
        ),
        (["train/a.jsonl", "train/b.jsonl", "val/a.jsonl"], ["train (2 files), validation (1 fil"]),
        (
            ["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"],
            ["-of-00003.parquet the pool has 2 of 3"],
        ),
    ],
)
def test_what_names_of_files_say(files: list[str], told: list[str]) -> None:
    found = remarks([PoolFile(Path("/pool", name), name) for name in files])
    assert len(found) == len(told)
    assert all(each in text for each, text in zip(told, found, strict=True))


@pytest.mark.parametrize(
    "text",
    [
        '"instruction, or task";output\nq;a\n',
        'sep=;\ninstruction;"a,b,c"\nq;a\n',
        "sep=|\r\ninstruction|output\r\nq|a\r\n",
        "SEP=\t\ninstruction\toutput\nq\ta\n",
    ],
)
def test_the_header_tells_what_separates(tmp_path: Path, text: str) -> None:
    (line,) = read(tmp_path / "a.csv", text.encode())
    assert line.row is not None
    assert list(line.row.values()) == ["q", "a"]
