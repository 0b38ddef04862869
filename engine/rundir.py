"""The run directory: where every stage writes, and what makes a result current.

::

    <run>/run.yaml                     the resolved configuration
    <run>/<stage>/part-00000.parquet   the data; stage, fingerprint and shard in its metadata
    <run>/<stage>/_stage.json          the record, written last: the stage is whole

Three rules, kept here and nowhere else. *One way to commit*: a temporary file, fsync, rename.
*Current or absent*: a shard counts only if it carries the fingerprint that is asked for. *Record
last*: a stage is whole when its record is there, and every file that it lists.
"""

# pyarrow ships no types, so nothing that comes out of it is known to a strict checker.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from engine import schema
from engine.errors import RunDirError
from engine.storage import is_disk_error, patiently

RECORD = "_stage.json"
SETTINGS = "run.yaml"
LOCK = "run.lock"
_METADATA_KEY = b"poolscore"
_HASHES = "hashes.json"


class Record(BaseModel):
    """What a finished stage says of itself; ``_stage.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    fingerprint: str
    """Digest of `settings`, `inputs` and the stage's version: what the results depend on."""
    settings: dict[str, Any]
    inputs: dict[str, str]
    """Fingerprints of the folders this stage read, by folder."""
    rows_in: int
    rows_out: int
    flags: dict[str, int]
    """Rows per flag among `rows_out`."""
    rejected: int = 0
    """Lines that never became a row (1-pool only)."""
    tokens: int = 0
    """Tokens processed, where the stage processes tokens."""
    seconds: float
    peak_memory_bytes: int
    """Largest resident memory of any one process of the stage."""
    workers: int
    files: list[str]
    """Names of the files it wrote; one that is gone makes the stage unfinished again."""
    details: dict[str, Any]
    """Whatever else a reader of this stage wants to know."""
    warnings: list[str] = []
    """What a person should know before trusting the results; shown wherever the stage is."""
    versions: dict[str, str]
    commit: str | None
    finished: str
    """UTC, ISO 8601."""

    @property
    def num_flagged(self) -> int:
        """Rows with a reason not to be scored."""
        return sum(num for flag, num in self.flags.items() if flag != schema.OK)


def fingerprint(
    stage: str, version: int, settings: Mapping[str, Any], inputs: Mapping[str, str]
) -> str:
    """Digest of everything a stage's results depend on: 32 hex digits of SHA-256.

    Resources are in `settings` of no stage, so they never change it.
    """
    content = {"stage": stage, "version": version, "settings": settings, "inputs": inputs}
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass(frozen=True)
class RunDir:
    """One run on disk. Small and picklable: workers hold one too."""

    path: Path

    # ── writing ──────────────────────────────────────────────────────────────────────────────────

    def commit(self, name: str, data: bytes) -> None:
        """Put `data` under `name`, whole or not at all, replacing what was there."""
        self.commit_made(name, lambda temporary: temporary.write_bytes(data))

    def commit_changed(self, name: str, data: bytes) -> None:
        """`commit`, but a file that holds this already is left alone."""
        try:
            if patiently((self.path / name).read_bytes) == data:
                return
        except FileNotFoundError:
            pass
        self.commit(name, data)

    def commit_made(self, name: str, write: Callable[[Path], object]) -> None:
        """Let `write` make a file, and put it under `name`, whole or not at all.

        Storage that is away is waited for, so `write` may have to begin again.
        """
        target = self.path / name
        self.refuse_links(name)

        def stage() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            with _Staged(target) as temporary:
                write(temporary)

        patiently(stage)

    def commit_table(
        self,
        folder: str,
        file: str,
        table: pa.Table,
        fingerprint: str,
        receipt: Mapping[str, Any] | None = None,
    ) -> None:
        """Put a Parquet file into a stage's folder, marked with the stage's fingerprint.

        `receipt` (counts) travels in the file, so that a resumed run still knows what the shards
        of an interrupted one held.
        """
        mark = {
            "stage": folder,
            "fingerprint": fingerprint,
            "shard": file,
            "receipt": dict(receipt or {}),
        }
        metadata = {**(table.schema.metadata or {}), _METADATA_KEY: json.dumps(mark).encode()}
        marked = table.replace_schema_metadata(metadata)
        self.commit_made(
            f"{folder}/{file}", lambda path: pq.write_table(marked, path, compression="zstd")
        )

    def commit_file(self, name: str, source: Path) -> None:
        """Move a finished file of the same file system under `name`, whole or not at all."""
        target = self.path / name
        self.refuse_links(name)

        def move() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.exists() or not target.exists():  # else an attempt did more than it knew
                _publish(source, target)

        patiently(move)

    def commit_record(self, folder: str, record: Record) -> None:
        """Mark a stage whole. Nothing of the stage may be written after this."""
        self.commit(f"{folder}/{RECORD}", (record.model_dump_json(indent=2) + "\n").encode())

    def sweep(self) -> None:
        """Remove temporary files that killed processes left; only the lock's holder may."""
        for path in self.path.rglob(".*.tmp"):
            path.unlink(missing_ok=True)

    def clear(self, folder: str) -> None:
        """Remove a stage's results, the record first: a kill in between leaves no false record."""
        patiently(lambda: (self.path / folder / RECORD).unlink(missing_ok=True))
        shutil.rmtree(self.path / folder, ignore_errors=True)

    def refuse_links(self, name: str) -> None:
        """Refuse a name whose folder leads out of the run directory through a link.

        Raises:
            RunDirError: says where it leads.
        """
        folder = (self.path / name).parent
        where = folder.resolve()
        if not where.is_relative_to(self.path.resolve()):
            raise RunDirError(
                f"{folder} leads out of the run directory, to {where}.\n"
                "Nothing is written there: remove the link, or use another --run-dir."
            )

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def record(self, folder: str) -> Record | None:
        """The stage's record, or None while the stage is not whole."""
        path = self.path / folder / RECORD
        try:
            return Record.model_validate_json(patiently(path.read_bytes))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RunDirError(
                f"the record {path} is damaged: {error}\n"
                f"Rebuild that stage: --rebuild {folder.split('/epoch-')[0].rsplit('-', 1)[-1]}"
            ) from None

    def names(self, folder: str) -> list[str]:
        """Names of the files in a folder, in order; none where there is no folder."""

        def listed() -> list[str]:
            with os.scandir(self.path / folder) as entries:
                return sorted(entry.name for entry in entries if entry.is_file())

        try:
            return patiently(listed)
        except FileNotFoundError:
            return []

    def shards(self, folder: str) -> list[str]:
        """File names of a stage's shards, in order, whatever their fingerprint."""
        return [name for name in self.names(folder) if fnmatch(name, "part-*.parquet")]

    def is_current(self, folder: str, file: str, fingerprint: str) -> bool:
        """Whether the shard exists, is readable and carries this fingerprint."""
        try:
            mark = _mark(self._schema(folder, file))
        except FileNotFoundError:
            return False
        except (pa.ArrowException, OSError, ValueError) as error:
            _refuse_disk_errors(self.path / folder / file, error)
            return False
        return mark.get("fingerprint") == fingerprint

    def receipt(self, folder: str, file: str) -> dict[str, Any]:
        """What was recorded inside a shard when it was committed."""
        return _mark(self._schema(folder, file)).get("receipt", {})

    def _schema(self, folder: str, file: str) -> pa.Schema:
        return patiently(partial(pq.read_schema, self.path / folder / file))

    def num_rows(self, folder: str, file: str) -> int:
        """Rows of one shard, read from its footer."""
        return patiently(partial(pq.read_metadata, self.path / folder / file)).num_rows

    def read_table(
        self, folder: str, file: str, fingerprint: str, columns: list[str] | None = None
    ) -> pa.Table:
        """Read one shard; refuse it when it was made under other settings.

        Raises:
            RunDirError: the file is missing, damaged or stale.
        """
        path = self.path / folder / file

        def read() -> pa.Table:
            with pq.ParquetFile(path) as shard:  # half the time of read_table on a small file
                return shard.read(columns)

        try:
            table = patiently(read)
            mark = _mark(table.schema)
            absent = set(columns or ()).difference(table.column_names)
            if absent:  # which this reader leaves out without a word
                raise ValueError(f"no column {', '.join(sorted(absent))}")
        except FileNotFoundError:
            raise RunDirError(f"{path} is missing; run the same command again") from None
        except (pa.ArrowException, OSError, ValueError) as error:
            _refuse_disk_errors(path, error)
            raise RunDirError(f"{path} is damaged ({error}); delete it and run again") from None
        if mark.get("fingerprint") != fingerprint:
            raise RunDirError(f"{path} was made with other settings; run the same command again")
        return table

    # ── hashing inputs ───────────────────────────────────────────────────────────────────────────

    def hash_files(self, paths: Mapping[str, Path]) -> dict[str, str]:
        """SHA-256 of files by name; remembered per path, size and times, so a rerun is instant.

        Raises:
            RunDirError: a file is gone or unreadable.
        """
        cache_path = self.path / _HASHES
        try:
            cache: dict[str, str] = json.loads(patiently(cache_path.read_bytes))
        except (FileNotFoundError, ValueError):
            cache = {}
        known = dict(cache)
        digests: dict[str, str] = {}
        for name, path in paths.items():
            try:
                status = patiently(path.stat)
                # The last of them nobody can set back, as copying tools do with the one before.
                times = f"{status.st_mtime_ns}|{status.st_ctime_ns}"
                key = f"{path.resolve()}|{status.st_size}|{times}"
                if key not in cache:
                    cache[key] = patiently(partial(_sha256, path))
            except OSError as error:
                raise RunDirError(
                    f"cannot read {path}, which this run depends on: {error.strerror}.\n"
                    "Check that it is there and that you may read it."
                ) from None
            digests[name] = cache[key]
        if cache != known:
            with contextlib.suppress(OSError):  # reading a run that one may not write is fine
                self.commit(_HASHES, json.dumps(cache, indent=0).encode())
        return digests


def _refuse_disk_errors(path: Path, error: Exception) -> None:
    if is_disk_error(error):
        raise RunDirError(
            f"{path} cannot be read: {error.strerror or error}\n"
            "It may well be whole: see to the storage, then run the same command again."
        ) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Staged:
    """A temporary file beside its target: renamed onto it on success, removed on failure."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")

    def __enter__(self) -> Path:
        return self.temporary

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.temporary.unlink(missing_ok=True)
            return
        try:
            _publish(self.temporary, self.target)
        except OSError:
            self.temporary.unlink(missing_ok=True)
            raise


def _publish(source: Path, target: Path) -> None:
    """Give a finished file its name, once what it holds is on the disk."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(target)


def _mark(schema: pa.Schema) -> dict[str, Any]:
    return json.loads((schema.metadata or {}).get(_METADATA_KEY, b"{}"))


def concat(tables: Iterator[pa.Table] | list[pa.Table]) -> pa.Table:
    """Stack shards into one table, without the marks of the single files."""
    stacked = [table.replace_schema_metadata(None) for table in tables]
    return pa.concat_tables(stacked)
