"""Coverage-guided fuzzing of what reads strangers' files: ``make fuzz``.

``python tests/fuzz/readers.py lines CORPUS -runs=1000000`` feeds bytes to the line and row
decoders; ``… files CORPUS -runs=10000`` writes whole files of every kind. A crash, a hang, an error
that is not one for people, or a wrong count ends it, and libFuzzer keeps the input.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
from pathlib import Path

import atheris
import pyarrow as pa
import pyarrow.parquet as pq

with atheris.instrument_imports(include=["engine"]):
    from engine import formats, readers, schema
    from engine.config import MAX_ROW_BYTES
    from engine.errors import BrokenFileError, PoolError
    from engine.readers import jsonl
    from engine.readers.json_array import ROW_KEYS

SUFFIXES = (
    *(".jsonl", ".json", ".parquet", ".jsonl.gz", ".jsonl.zst"),
    *(".csv", ".tsv", ".arrow", ".json.gz"),
)
COUNTED = SUFFIXES[:5]
"""Others can tell how many rows these hold; of the rest every line is a row or has a reason."""
BOM = b"\xef\xbb\xbf"
_folder = tempfile.TemporaryDirectory()


def numbered(data: bytes) -> list[tuple[int, bytes]]:
    """The lines that are not blank, by their numbers: what must come out, one way or the other."""
    lines = enumerate(data.removeprefix(BOM).split(b"\n"), start=1)
    return [(number, line.removesuffix(b"\r")) for number, line in lines if line.strip()]


def check_row(line: readers.Line) -> None:
    """A row has an id or a reason; its id is a function of its turns; its text survives."""
    assert (line.raw is None) == (line.reason is not None)
    if line.row is None:
        assert line.reason in schema.REJECT_REASONS
        return
    reason = ""
    try:
        turns, flag = formats.to_conversation(line.row)
    except formats.RowError as error:
        reason = error.reason
    if reason:
        assert reason in schema.REJECT_REASONS
        return
    assert flag in schema.FLAGS
    assert len(formats.row_id(turns)) == 32
    for turn in turns:
        assert turn.content.encode().decode() == turn.content


def lines(data: bytes) -> None:
    """Lines of JSONL, without a file."""
    parts = [part + b"\n" for part in data.split(b"\n")]
    found = list(jsonl.read_jsonl(parts, BOM, MAX_ROW_BYTES))
    expected = numbered(data)
    assert [line.line for line in found] == [number for number, _ in expected]
    for line, (_, text) in zip(found, expected, strict=True):
        assert line.raw is None or line.raw.encode() == text
        check_row(line)


def files(data: bytes) -> None:
    """A whole file; its kind and where it is cut come from the first two bytes."""
    if len(data) < 2:
        return
    suffix, content = SUFFIXES[data[0] % len(SUFFIXES)], data[2:]
    path = Path(_folder.name, f"pool{suffix}")
    path.write_bytes(content)
    (file,) = readers.find_files([str(path)])
    pieces = readers.cut(file, max_bytes=data[1] + 1)
    found: list[readers.Line] = []
    before, reason = 0, ""
    try:
        for piece in pieces:
            for line in readers.read_lines(piece):
                check_row(line)
                found.append(line)
            before += readers.count_lines(piece)
    except BrokenFileError as error:
        reason = error.reason
    except PoolError:
        return
    if reason:
        assert reason in schema.FILE_REASONS
    elif suffix in COUNTED and not (suffix == ".json" and readers.kind(file).content == "lines"):
        assert len(found) == num_entries(suffix, content)
    if suffix == ".jsonl" and not reason:
        assert before == content.count(b"\n") + (not content.endswith(b"\n") and bool(content))


def has_rows(value: object) -> bool:
    """A list that begins with an object."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def num_entries(suffix: str, content: bytes) -> int:
    """Rows and rejects of a file that is not broken, as others count them."""
    if suffix == ".parquet":
        return pq.ParquetFile(pa.BufferReader(content)).metadata.num_rows
    if suffix == ".json":
        document = json.loads(content.removeprefix(BOM))
        if isinstance(document, list):
            return len(document)
        lists = [value for key, value in document.items() if key in ROW_KEYS and has_rows(value)]
        return len(lists[0]) if lists else 1
    if suffix == ".jsonl.gz":
        content = gzip.decompress(content)
    elif suffix == ".jsonl.zst":
        content = pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()
    return len(numbered(content))


def main() -> None:
    """Hand over to libFuzzer."""
    target = {"lines": lines, "files": files}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
