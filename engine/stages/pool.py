"""1 pool: any format → one conversation per row.

Reads the pool's files, in the order of their names, line by line. Writes ``1-pool/part-*.parquet``
with the columns of `schema.POOL` and ``rejected.parquet`` with those of `schema.REJECTED`:
lines = rows + rejected. A row keeps its own JSON in `raw`, its place in `row`, and a reason in
`flag` where it will not be scored. Everything after this stage has exactly these rows.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from engine import formats, readers, schema
from engine.config import Config, PoolConfig
from engine.errors import PoolError
from engine.mapping import peak_memory_bytes
from engine.nodes import Nodes
from engine.progress import Progress
from engine.rundir import RunDir
from engine.step import REJECTED_FILE, Outcome, Step

NAME = "pool"
VERSION = 1


def settings(config: Config, run: RunDir, epoch: int) -> dict[str, Any]:
    """The files by content, and every setting of the pool but where the files lie."""
    files = readers.find_files(config.pool.paths)
    digests = run.hash_files({file.name: file.path for file in files})
    return {**config.pool.model_dump(mode="json", exclude={"paths"}), "files": digests}


def run(step: Step, nodes: Nodes) -> Outcome:
    """Read every file and write shards of `pool.shard_rows` rows.

    Raises:
        PoolError: a file is unreadable as a whole, or no row is left.
    """
    config = step.config.pool
    writer = _ShardWriter(step, config)
    rejected: list[dict[str, Any]] = []
    seen: set[bytes] = set()
    files = readers.find_files(config.paths)
    total_bytes = sum(file.path.stat().st_size for file in files)
    progress = Progress(step.label, total_bytes, "bytes")
    for file in files:
        for line in readers.read_lines(file):
            _take(line, file, config, seen, writer, rejected)
            if writer.num_rows % 1000 == 0:
                progress.at(min(writer.raw_bytes, total_bytes))
    progress.finish()
    writer.close()
    if not writer.num_rows:
        raise PoolError(
            what=f"the pool has no row that can be read; {len(rejected):,} lines were rejected",
            where=f"{', '.join(file.name for file in files[:3])}{_first(rejected)}",
            fix="see docs/formats.md for the formats known, or name the rows' own keys with "
            "--set pool.fields.prompt=… --set pool.fields.response=…",
        )
    step.commit(REJECTED_FILE, pa.Table.from_pylist(rejected, schema=schema.REJECTED))
    return Outcome(
        rows_in=writer.num_rows + len(rejected),
        rows_out=writer.num_rows,
        flags=dict(writer.flags),
        rejected=len(rejected),
        peak_memory_bytes=peak_memory_bytes(),
        details={"files": len(files), "rejected": dict(Counter(r["reason"] for r in rejected))},
    )


def _take(
    line: readers.Line,
    file: readers.PoolFile,
    config: PoolConfig,
    seen: set[bytes],
    writer: _ShardWriter,
    rejected: list[dict[str, Any]],
) -> None:
    """Turn one line into a row of the writer, or into an entry of the rejects."""
    place = {"file": file.name, "line": line.line}
    if line.row is None:
        rejected.append({**place, "reason": line.reason, "detail": line.detail})
        return
    try:
        turns, flag = formats.to_conversation(line.row, config.fields)
        row_id = formats.row_id(turns)
    except formats.RowError as error:
        rejected.append({**place, "reason": error.reason, "detail": error.detail})
        return
    digest = bytes.fromhex(row_id)
    if digest in seen:
        flag = schema.DUPLICATE
    seen.add(digest)
    writer.add(
        {
            "id": row_id,
            **place,
            "source": _source(line.row, file, config.source_field),
            "split": split_of(row_id, config.holdout_fraction),
            "turns": [{"role": role, "content": content} for role, content in turns],
            "raw": line.raw,
            "flag": flag,
        }
    )


def split_of(row_id: str, holdout_fraction: float) -> str:
    """``holdout`` for that fraction of all ids, by hash: equal ids share a split in every pool."""
    number = int.from_bytes(hashlib.sha256(f"split:{row_id}".encode()).digest()[:8], "big")
    return schema.HOLDOUT if number < holdout_fraction * 2**64 else schema.TRAIN


def _source(row: Mapping[str, Any], file: readers.PoolFile, field: str | None) -> str:
    value = row.get(field) if field is not None else None
    if value is None:
        return file.name.rsplit("/", 1)[-1].split(".", 1)[0]
    return str(value).encode("utf-8", "replace").decode()  # a lone surrogate fits no column


def _first(rejected: list[dict[str, Any]]) -> str:
    if not rejected:
        return ""
    first = rejected[0]
    return f" (the first: line {first['line']}, {first['reason']}, {first['detail']})"


class _ShardWriter:
    """Collects rows and closes a shard when it is full."""

    def __init__(self, step: Step, config: PoolConfig) -> None:
        self.step, self.config = step, config
        self.flags: Counter[str] = Counter()
        self.num_rows = 0
        self.raw_bytes = 0
        self._shards = self._names()
        self._rows: list[dict[str, Any]] = []
        self._shard_bytes = 0

    def add(self, row: dict[str, Any]) -> None:
        size = len(row["raw"].encode())
        self._rows.append({**row, "row": self.num_rows})
        self.flags[row["flag"]] += 1
        self.num_rows += 1
        self.raw_bytes += size
        self._shard_bytes += size
        full = len(self._rows) >= self.config.shard_rows
        if full or self._shard_bytes >= self.config.shard_bytes:
            self._flush()

    def close(self) -> None:
        """Write the last shard, and remove shards that a longer, interrupted run left behind."""
        if self._rows:
            self._flush()
        written = next(self._shards)
        for shard in self.step.run.shards(self.step.folder):
            if shard >= written:
                (self.step.run.path / self.step.folder / shard).unlink()

    def _flush(self) -> None:
        table = pa.Table.from_pylist(self._rows, schema=schema.POOL)
        self.step.commit(next(self._shards), table)
        self._rows, self._shard_bytes = [], 0

    @staticmethod
    def _names() -> Iterator[str]:
        index = 0
        while True:
            yield f"part-{index:05d}.parquet"
            index += 1
