"""The run directory: where every stage writes, and what makes a result current.

::

    <run>/run.yaml                     the resolved configuration
    <run>/<stage>/part-00000.parquet   the data; stage, fingerprint and shard in its metadata
    <run>/<stage>/_stage.json          the record, written last: the stage is whole

Three rules, kept here and nowhere else. *One way to commit*: a temporary file, fsync, rename
(`staging`). *Current or absent*: a shard counts only if it carries the fingerprint that is asked
for. *Record last*: a stage is whole when its record (`record`) is there, and every file that it
lists (`wholeness`).

The directory itself is made once, when a run begins (`make_root`): what is renamed or removed under
a run never comes back by halves.
"""

# pyarrow ships no types, so nothing that comes out of it is known to a strict checker.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa

from engine import hashes, shards, staging
from engine.errors import RunDirError
from engine.record import (
    STATE_FOLDER,
    FileEntry,
    OtherFormatError,
    Record,
    fingerprint,
    is_hidden,
    is_shard,
    parse,
)
from engine.shards import GONE, concat
from engine.storage import patiently

__all__ = ["FileEntry", "Record", "RunDir", "concat", "fingerprint", "gone", "make_root"]

RECORD = "_stage.json"
SETTINGS = "run.yaml"
LOCK = "run.lock"
_HASHES = "hashes.json"


@dataclass(frozen=True)
class RunDir:
    """One run on disk. Small and picklable: workers hold one too."""

    path: Path
    digests: dict[str, str] | None = field(default=None, compare=False)
    """Of input files, known so far; None: those that the directory remembers (`hash_files`)."""

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

        Raises:
            RunDirError: the run directory is gone.
        """
        target = self.path / name
        self.refuse_links(name)

        def stage() -> None:
            self.make(PurePath(name).parent)
            with self._there(), staging.staged(target) as temporary:
                write(temporary)

        patiently(stage)

    def make(self, folder: str | PurePath) -> Path:
        """Make a folder in the run directory, which itself has to be there.

        Raises:
            RunDirError: it is not there any more.
        """
        made = self.path
        for part in PurePath(folder).parts:
            made /= part
            with contextlib.suppress(FileExistsError), self._there():
                made.mkdir()
        return made

    @contextmanager
    def _there(self) -> Generator[None]:
        try:
            yield
        except GONE:
            if self.path.is_dir():
                raise
            raise gone(self.path) from None

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
        self.commit_made(f"{folder}/{file}", lambda path: shards.write(path, table, mark))

    def commit_file(self, name: str, source: Path) -> None:
        """Move a finished file of the same file system under `name`, whole or not at all."""
        target = self.path / name
        self.refuse_links(name)

        def move() -> None:
            self.make(PurePath(name).parent)
            if source.exists() or not target.exists():  # else an attempt did more than it knew
                staging.publish(source, target)

        patiently(move)

    def commit_record(self, folder: str, record: Record) -> None:
        """Mark a stage whole. Nothing of the stage may be written after this."""
        self.commit(f"{folder}/{RECORD}", (record.model_dump_json(indent=2) + "\n").encode())

    def sweep(self) -> None:
        """Remove temporary files that killed processes left; only the lock's holder may."""
        patiently(partial(staging.sweep, self.path))

    def unmark(self, folder: str) -> None:
        """Take back that a stage is whole, before anything in it is written."""
        patiently(lambda: (self.path / folder / RECORD).unlink(missing_ok=True))

    def clear(self, folder: str) -> None:
        """Remove a stage's results, the record first: a kill in between leaves no false record."""
        self.unmark(folder)
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
        """The stage's record, or None while the stage is not whole.

        Raises:
            RunDirError: it is damaged, or another version of poolscore wrote it.
        """
        path = self.path / folder / RECORD
        rebuild = f"--rebuild {folder.split('/epoch-')[0].rsplit('-', 1)[-1]}"
        try:
            state = patiently(path.stat)
            return _record(path, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        except GONE:
            return None
        except OtherFormatError as error:
            raise RunDirError(
                f"the record {path} {error}.\n"
                f"Use that version, or make the stage again with this one: {rebuild}"
            ) from None
        except OSError as error:
            raise shards.unreadable(path, error) from None
        except ValueError as error:
            raise RunDirError(
                f"the record {path} is damaged: {error}\nRebuild that stage: {rebuild}"
            ) from None

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of each file that lies in a folder, by name, in order; none where there is none.

        Files in `STATE_FOLDER` are told with it, ``state/…``. Names that begin with a dot or an
        underscore count for nothing.

        Raises:
            RunDirError: the folder cannot be listed.
        """

        def listed() -> dict[str, int]:
            with os.scandir(self.path / folder) as entries:
                names = [entry.name for entry in entries if entry.name != STATE_FOLDER]
            place = self.path / folder
            names += (p.relative_to(place).as_posix() for p in (place / STATE_FOLDER).rglob("*"))
            files = {name: place / name for name in sorted(filter(_counts, names))}
            return {name: path.stat().st_size for name, path in files.items() if path.is_file()}

        try:
            return patiently(listed)
        except GONE:
            return {}
        except OSError as error:
            raise shards.unreadable(self.path / folder, error) from None

    def shards(self, folder: str) -> list[str]:
        """File names of the shards that lie in a folder, in order, whatever they are.

        Only for the stage that writes them: readers go by its record.
        """
        return [name for name in self.sizes(folder) if is_shard(name)]

    def is_current(self, folder: str, file: str, fingerprint: str) -> bool:
        """Whether the shard exists, is readable and carries this fingerprint."""
        mark = shards.mark_if_whole(self.path / folder / file)
        return _bears(mark, folder, file) and mark.get("fingerprint") == fingerprint

    def is_leftover(self, folder: str, file: str, fingerprint: str) -> bool:
        """Whether the stage itself wrote this file, under other settings."""
        mark = shards.mark_if_whole(self.path / folder / file)
        return _bears(mark, folder, file) and mark.get("fingerprint") != fingerprint

    def receipt(self, folder: str, file: str) -> dict[str, Any]:
        """What was recorded inside a shard when it was committed.

        Raises:
            RunDirError: the file is missing or damaged.
        """
        return shards.mark_at(self.path / folder / file).get("receipt", {})

    def num_rows(self, folder: str, file: str) -> int:
        """Rows of one shard, read from its footer.

        Raises:
            RunDirError: the file is missing or damaged.
        """
        return shards.num_rows(self.path / folder / file)

    def read_table(
        self, folder: str, file: str, fingerprint: str, columns: list[str] | None = None
    ) -> pa.Table:
        """Read one shard; refuse it when it was made under other settings.

        Raises:
            RunDirError: the file is missing, damaged (every page has a checksum), stale, or
                another one under this name.
        """
        path = self.path / folder / file
        table = shards.read(path, columns)
        with shards.reading(path):
            mark = shards.mark_of(table.schema)
        if mark.get("fingerprint") != fingerprint:
            raise RunDirError(f"{path} was made with other settings; run the same command again")
        if not _bears(mark, folder, file):
            was = f"{mark.get('stage')}/{mark.get('shard')}"
            raise RunDirError(f"{path} was written as {was}; delete it and run again")
        return table

    def read_unmarked(self, folder: str, file: str, columns: list[str] | None = None) -> pa.Table:
        """Read a Parquet file that is made for other tools too, and says nothing of its stage.

        Raises:
            RunDirError: the file is missing or damaged.
        """
        return shards.read(self.path / folder / file, columns)

    def digest(self, folder: str, file: str) -> tuple[int, str]:
        """Bytes of a file, and their SHA-256.

        Raises:
            RunDirError: it is missing or cannot be read.
        """
        path = self.path / folder / file
        with shards.reading(path):
            return patiently(path.stat).st_size, patiently(partial(hashes.sha256, path))

    def hash_files(self, paths: Mapping[str, Path]) -> dict[str, str]:
        """SHA-256 of files by name; remembered per path, size and times, so a rerun is instant.

        Raises:
            RunDirError: a file is gone or unreadable.
        """
        kept = self.path / _HASHES
        known = hashes.remembered(kept) if self.digests is None else self.digests
        before = len(known)
        digests = hashes.of_files(paths, known)
        if len(known) != before:
            # Reading a run that one may not write is fine.
            with contextlib.suppress(OSError, RunDirError):
                self.commit(_HASHES, json.dumps(known, indent=0).encode())
        return digests


def make_root(path: Path) -> None:
    """Make the run directory: once, when a run begins.

    Raises:
        RunDirError: it cannot be made, or is no folder.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        there = next((p for p in path.parents if p.exists()), path)
        raise RunDirError(
            f"the run directory {path} cannot be made: {error.strerror}.\n"
            + (f"{there} is a file. " if there.is_file() else f"It would lie in {there}. ")
            + "Name a folder below one that you may write to."
        ) from None


def gone(path: Path) -> RunDirError:
    """What is said when a run directory is not there any more."""
    return RunDirError(
        f"{path} is gone: it was renamed or removed while this run wrote there.\n"
        "This run stops. Put it back, or name its new place, and run the same command: it goes on "
        "where it was."
    )


@lru_cache(maxsize=64)
def _record(path: Path, *state: int) -> Record:
    """The record, as long as its file is the same: readers ask for it often."""
    return parse(patiently(path.read_bytes))


def _counts(name: str) -> bool:
    """Whether nothing in a file's name within a stage's folder is hidden."""
    return not any(map(is_hidden, name.split("/")))


def _bears(mark: Mapping[str, Any], folder: str, file: str) -> bool:
    """Whether a shard was written under this name: a copy of another one was not."""
    return (mark.get("stage"), mark.get("shard")) == (folder, file)
