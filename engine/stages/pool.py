"""1 pool: any format → one conversation per row.

Reads the pool's files, in the order of their names, line by line. Writes ``1-pool/part-*.parquet``
with the columns of `schema.POOL` and ``rejected.parquet`` with those of `schema.REJECTED`:
lines = rows + rejected. A row keeps its own JSON in `raw`, its place in `row`, and a reason in
`flag` where it will not be scored. Everything after this stage has exactly these rows.

It goes in two passes, each on all cores. The first turns pieces of files into Arrow files, knowing
nothing of other pieces. Between them the driver adds up lines and rows, finds the duplicates and
decides where shards end. The second puts the shards together.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine import formats, heartbeat, readers, schema
from engine.census import Census
from engine.config import Config, PoolConfig
from engine.errors import BrokenFileError
from engine.failures import for_people
from engine.nodes import Nodes
from engine.parallel import peak_memory_bytes, run_all
from engine.parts import Part, Shard, shards_of
from engine.progress import Progress
from engine.rejects import refuse_rotten, refuse_unknown_source
from engine.rundir import RunDir
from engine.sheet import Sheet
from engine.step import REJECTED_FILE, Outcome, Step
from engine.storage import patiently

NAME = "pool"
VERSION = 7

# What a row is before the rows ahead of it are known: no `row`, `line` within the piece, no flag
# `duplicate`.
_ROWS = pa.schema([field for field in schema.POOL if field.name != "row"])


def settings(config: Config, run: RunDir, epoch: int) -> dict[str, Any]:
    """The files by content, and every setting of the pool that decides what its rows are."""
    files = readers.find_files(config.pool.paths)
    digests = run.hash_files({file.name: file.path for file in files})
    exclude = {"paths", "max_reject_fraction", "keep_broken_files"}
    return {**config.pool.model_dump(mode="json", exclude=exclude), "files": digests}


def run(step: Step, nodes: Nodes | None, piece_bytes: int = readers.PIECE_BYTES) -> Outcome:
    """Read every file and write its rows in shards.

    Args:
        step: where to write.
        nodes: the cluster; a pool of one piece, or without a cluster, is read in this process.
        piece_bytes: what one process reads at a time. Never changes what comes out.

    Raises:
        PoolError: a file is broken or unreadable, too many lines are rejected, or no row is left.
            What was rejected is in ``rejected.parquet`` by then.
    """
    config = step.config.pool
    files = readers.find_files(config.paths)
    batches = patiently(partial(_batches, files, piece_bytes))
    if len(batches) == 1:
        nodes = None
    with _parts_folder(step) as folder, for_people(step):
        parts = _read_all(step, nodes, batches, folder)
        num_rows = sum(part.num_rows for part in parts)
        census = Census()
        for part in parts:
            census.merge(part.census)
        rejected = patiently(lambda: _all_rejected(parts))
        census.reveal(num_rows, len(rejected))
        step.commit(REJECTED_FILE, rejected)
        where = step.run.path / step.folder / REJECTED_FILE
        refuse_rotten(config, files, num_rows, rejected, census, where)
        refuse_unknown_source(config, files, num_rows, census)
        shards = patiently(partial(shards_of, parts, config))
        written = _write_all(step, nodes, shards)
    _remove_all_but(step, {shard.name for shard in shards})
    reasons = Counter(rejected["reason"].to_pylist())
    return Outcome(
        rows_in=num_rows + len(rejected),
        rows_out=num_rows,
        flags=dict(sum((done.flags for done in written), Counter())),
        rejected=len(rejected),
        workers=nodes.num_cpus if nodes else 1,
        peak_memory_bytes=max(
            peak_memory_bytes(), *(done.peak_memory_bytes for done in chain(parts, written))
        ),
        details={
            "files": len(files),
            "rejected": dict(reasons),
            "unused_keys": census.unused.listed(),
            "unused_keys_unlisted": census.unused.num_unlisted,
            "rows_without_source": census.num_without_source,
        },
        notes=_notes(census),
        warnings=[*readers.remarks(files), *_warnings(config, num_rows, census)],
    )


def _notes(census: Census) -> list[str]:
    """What the rows hold and the results will not show."""
    names = census.unused.shown("rows")
    return [f"keys of the pool that play no part: {names}. See docs/formats.md"] if names else []


def _warnings(config: PoolConfig, num_rows: int, census: Census) -> list[str]:
    said: list[str] = []
    if census.num_without_source:
        said.append(
            f"{census.num_without_source:,} of {num_rows:,} rows have no {config.source_field}: "
            "their source is the name of their file"
        )
    return said


def _all_rejected(parts: list[Part]) -> pa.Table:
    return pa.concat_tables([part.open_rejected() for part in parts]).combine_chunks()


@contextmanager
def _parts_folder(step: Step) -> Iterator[Path]:
    """A hidden folder for parts, removed in the end, as are those of runs that were killed.

    Its name is new each time: tasks of a run that was killed may go on writing for a moment.
    """
    own = step.run.path / step.folder

    def make() -> Path:
        step.run.make(step.folder)
        for left in own.glob(".parts-*"):
            shutil.rmtree(left, ignore_errors=True)
        return Path(tempfile.mkdtemp(prefix=".parts-", dir=own))

    folder = patiently(make)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # a task that runs on may add a file yet


def _remove_all_but(step: Step, shards: set[str]) -> None:
    """Remove the shards that a longer, interrupted run left behind."""
    for shard in set(step.run.shards(step.folder)) - shards:
        (step.run.path / step.folder / shard).unlink()


# ── first pass: pieces to parts ──────────────────────────────────────────────────────────────────


def _batches(files: Sequence[readers.PoolFile], piece_bytes: int) -> list[list[readers.Piece]]:
    """What each task reads: beginnings of files, `piece_bytes` in all, or a later piece of one."""
    batches: list[list[readers.Piece]] = []
    room = 0
    for piece in chain.from_iterable(readers.cut(file, piece_bytes) for file in files):
        if piece.start or room <= 0:
            batches.append([])
            room = piece_bytes
        batches[-1].append(piece)
        room -= piece_bytes if piece.start else piece.end
    return batches


def _read_all(
    step: Step, nodes: Nodes | None, batches: list[list[readers.Piece]], folder: Path
) -> list[Part]:
    sizes = [sum(piece.end - piece.start for piece in batch) for batch in batches]
    progress = Progress(step.label, sum(sizes), "bytes")
    parts: list[Part] = []
    before = 0
    with closing(
        run_all(
            partial(_read, step.config.pool, folder),
            batches,
            nodes,
            folder.parent / heartbeat.FOLDER,
        )
    ) as stream:
        for batch, size, part in zip(batches, sizes, stream, strict=True):
            before = before if batch[0].start else 0
            parts.append(replace(part, lines_before=before))
            before += part.num_lines
            progress.add(size)
    progress.finish()
    return parts


def _read(config: PoolConfig, folder: Path, pieces: list[readers.Piece]) -> Part:
    """Read pieces that all start their files, or one that does not."""
    name = uuid.uuid4().hex  # a task that is tried again writes other files
    rows = Sheet(folder / f"{name}.rows.arrow", _ROWS)
    rejected = Sheet(folder / f"{name}.rejected.arrow", schema.REJECTED)
    census = Census()
    with closing(rows), closing(rejected):
        for piece in pieces:
            _read_piece(piece, config, rows, rejected, census)
    num_lines = readers.count_lines(pieces[-1])
    return Part(rows.path, rejected.path, rows.num_rows, num_lines, peak_memory_bytes(), census)


def _read_piece(
    piece: readers.Piece, config: PoolConfig, rows: Sheet, rejected: Sheet, census: Census
) -> None:
    try:
        for line in readers.read_lines(piece, config.max_row_bytes):
            heartbeat.beat()
            _take(line, piece.file, config, rows, rejected, census)
    except BrokenFileError as error:
        detail = error.what if error.fix in error.what else f"{error.what}; {error.fix}"
        rejected.add((piece.file.name, error.line, error.reason, detail))


def _take(
    line: readers.Line,
    file: readers.PoolFile,
    config: PoolConfig,
    rows: Sheet,
    rejected: Sheet,
    census: Census,
) -> None:
    """Turn one line into a row, or into an entry of the rejects."""
    if line.row is None or line.raw is None:
        rejected.add((file.name, line.line, line.reason, line.detail))
        return
    try:
        turns, flag, unused = formats.convert(line.row, config.fields)
        row_id = formats.row_id(turns)
    except formats.RowError as error:
        census.add_rejected(line.row)
        rejected.add((file.name, line.line, error.reason, error.detail))
        return
    source = file.name.rsplit("/", 1)[-1].split(".", 1)[0]
    if config.source_field is not None:
        named = formats.find(line.row, config.source_field)
        if named is None:
            census.add_without_source(line.row)
        else:
            source = named.text
            unused = named.left_of(unused)
    if unused:
        census.unused.add(unused)
    split = split_of(row_id, config.holdout_fraction)
    rows.add((row_id, source, file.name, line.line, split, turns, line.raw, flag), len(line.raw))


def split_of(row_id: str, holdout_fraction: float) -> str:
    """``holdout`` for that fraction of all ids, by hash: equal ids share a split in every pool."""
    number = int.from_bytes(hashlib.sha256(f"split:{row_id}".encode()).digest()[:8], "big")
    return schema.HOLDOUT if number < holdout_fraction * 2**64 else schema.TRAIN


# ── second pass: parts to shards ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Written:
    """A shard's receipt."""

    num_rows: int
    flags: Counter[str]
    peak_memory_bytes: int


def _write_all(step: Step, nodes: Nodes | None, shards: list[Shard]) -> list[Written]:
    progress = Progress(step.label, sum(len(shard.is_duplicate) for shard in shards), "rows")
    written: list[Written] = []
    working = step.run.path / step.folder / heartbeat.FOLDER
    with closing(run_all(partial(_write, step), shards, nodes, working)) as stream:
        for done in stream:
            written.append(done)
            progress.add(done.num_rows)
    progress.finish()
    return written


def _write(step: Step, shard: Shard) -> Written:
    slices = [part.open_rows().slice(start, num) for part, start, num in shard.slices]
    table = pa.concat_tables(slices).combine_chunks()
    found = zip(table["flag"].to_pylist(), shard.is_duplicate, strict=True)
    flags = [schema.DUPLICATE if again else flag for flag, again in found]
    rows = range(shard.first_row, shard.first_row + len(flags))
    made = {"row": pa.array(rows, pa.int64()), "flag": pa.array(flags, pa.string())}
    columns = [made[name] if name in made else table[name] for name in schema.POOL.names]
    step.commit(shard.name, pa.table(columns, schema=schema.POOL))
    return Written(len(flags), Counter(flags), peak_memory_bytes())
