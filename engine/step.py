"""One stage's turn in a run: where it reads, where it writes, under which fingerprint.

Stages meet only in the run directory. A `Step` is the handle that a stage gets on it; it is small
and picklable, so that workers on other nodes use the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from engine.config import Config
from engine.errors import RunDirError
from engine.record import FileEntry, Record, is_shard, is_state
from engine.rundir import RunDir
from engine.threads import in_order
from engine.wholeness import entries, foreign, in_words, lost

POOL = "1-pool"
EMBED = "2-embed"
CLUSTER = "3-cluster"
TOKENS = "4-tokens"
PERPLEXITY = "5-perplexity"
FINETUNE = "6-finetune"
SCORE = "7-score"
SELECT = "8-select"
REPORT = "9-report"

UNDER_WAY = ".under-way"
"""In the run directory: the folder of the stage that was begun last and is not done."""

# Files beside or instead of shards, which other stages and readers know by name.
REJECTED_FILE = "rejected.parquet"
CENTROIDS_FILE = "centroids.parquet"
STEPS_FILE = "steps.parquet"
SELECTED_PARQUET = "selected.parquet"
SELECTED_JSONL = "selected.jsonl"
REPORT_FILE = "report.html"

_BESIDE_SHARDS = {
    "pool": (REJECTED_FILE,),
    "cluster": (CENTROIDS_FILE,),
    "select": (SELECTED_JSONL, SELECTED_PARQUET),
    "report": (REPORT_FILE,),
}


@dataclass(frozen=True)
class Outcome:
    """What a stage tells the record."""

    rows_in: int
    rows_out: int
    flags: Mapping[str, int] = field(default_factory=dict)
    rejected: int = 0
    tokens: int = 0
    workers: int = 1
    peak_memory_bytes: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    """What a person may want to know, a line each; no reason to trust the results less."""
    warnings: Sequence[str] = ()
    """What a person should know before trusting the results, a sentence or two each."""


@dataclass(frozen=True)
class Step:
    """A stage, one epoch of it where it runs once per epoch."""

    stage: str
    """Name of the stage: ``pool``, ``embed`` …"""
    folder: str
    """Where it writes, relative to the run directory."""
    epoch: int
    """Epoch it belongs to; 0 for stages outside the epochs."""
    config: Config
    run: RunDir
    settings: Mapping[str, Any]
    """What its results depend on besides its inputs."""
    inputs: Mapping[str, str]
    """Folders it reads and their fingerprints."""
    fingerprint: str

    @property
    def label(self) -> str:
        """Name for people: the stage, and its epoch where it has one."""
        return f"{self.stage} epoch {self.epoch}" if "/epoch-" in self.folder else self.stage

    def proxy_input(self, stage_folder: str, epoch: int | None = None) -> str:
        """Full name of an input folder in the proxy's part of the run."""
        folder = f"{proxy_folder(self.config)}/{stage_folder}"
        return folder if epoch is None else f"{folder}/epoch-{epoch}"

    def shards(self) -> list[str]:
        """The run's shard names, in order: those that the pool's record lists.

        Raises:
            RunDirError: the pool is not finished, so that nobody knows them all.
        """
        record = self.run.record(POOL)
        if record is None:
            raise RunDirError(
                f"{self.run.path / POOL} is not finished, and everything else is made of it. Run "
                "`poolscore run` with the same settings to finish it."
            )
        return record.shards

    def read(self, folder: str, shard: str, columns: list[str] | None = None) -> pa.Table:
        """One shard of an input (or of this step's own output), its fingerprint checked."""
        fingerprint = self.fingerprint if folder == self.folder else self.inputs[folder]
        return self.run.read_table(folder, shard, fingerprint, columns)

    def commit(self, shard: str, table: pa.Table, receipt: Mapping[str, Any] | None = None) -> None:
        """Write one file of this step's output."""
        self.run.commit_table(self.folder, shard, table, self.fingerprint, receipt)

    def entries(self) -> dict[str, FileEntry]:
        """What its record says of the files that this step has written.

        Raises:
            RunDirError: a file is none of them, or cannot be read.
        """
        self.tidy()
        return entries(self.run, self.folder, self.run.sizes(self.folder))

    def tidy(self) -> None:
        """Remove what a killed run left here under other settings; refuse what no run wrote.

        Raises:
            RunDirError: names such a file.
        """
        if self.stage == "finetune":  # which writes whole models, and clears its folder itself
            return
        beside = _BESIDE_SHARDS.get(self.stage, ())
        for name in self.run.sizes(self.folder):
            if name in beside or self.run.is_current(self.folder, name, self.fingerprint):
                continue
            path = self.run.path / self.folder / name
            if self.run.is_leftover(self.folder, name, self.fingerprint):
                path.unlink(missing_ok=True)
            elif not is_shard(name) or name not in self._to_write():
                raise RunDirError(f"{path} is no file of this run, and lies in its way. Move it.")

    def _to_write(self) -> list[str]:
        """Shards that this step will write over, whatever lies under their names."""
        return self.run.shards(POOL) if self.folder == POOL else self.shards()

    def loads(self, folder: str, name: str) -> bool:
        """Whether this step reads that file of an input, beyond what the record says of it.

        A model is as many gigabytes to hash as to load: only who loads it asks whether it is whole.
        """
        if f"/{FINETUNE}/" not in folder:
            return True
        return self.stage == ("finetune" if is_state(name) else "perplexity")

    def missing(self) -> list[str]:
        """Shards this step has yet to write: what a resumed run works on."""
        return [
            s for s in self.shards() if not self.run.is_current(self.folder, s, self.fingerprint)
        ]


def proxy_folder(config: Config) -> str:
    """Folder of the configured proxy's part of a run."""
    return f"proxies/{config.proxy_name}"


def is_whole(step: Step, record: Record) -> bool:
    """Whether the stage's record fits the settings, every file that it lists is there in its full
    size, and every shard is of these settings: what outlives a killed run may write over those of
    the next one.
    """
    if record.fingerprint != step.fingerprint or lost(step.run, step.folder, record):
        return False

    def current(shard: str) -> bool:
        return step.run.is_current(step.folder, shard, step.fingerprint)

    return all(in_order(current, record.shards))


def refuse_drift(*steps: Step) -> list[bool]:
    """Whether each step is whole. Records made under other settings stop the run.

    Raises:
        RunDirError: names each setting that differs, both values and the two ways out; or files in
            a finished stage's folder that the stage has not written.
    """
    records = [step.run.record(step.folder) for step in steps]
    drifted = [
        (step, differences(record.settings, dict(step.settings)))
        for step, record in zip(steps, records, strict=True)
        if record is not None and record.fingerprint != step.fingerprint
    ]
    # What only reads a stage that drifted has no difference of its own.
    roots = [(step, leaves) for step, leaves in drifted if leaves] or drifted[:1]
    if roots:
        raise RunDirError(_drift_message(roots))
    strange = [
        fault
        for step, record in zip(steps, records, strict=True)
        if record is not None
        for fault in foreign(step.run, step.folder, record)
    ]
    if strange:
        raise RunDirError(in_words(steps[0].run, strange))
    return [
        record is not None and is_whole(step, record)
        for step, record in zip(steps, records, strict=True)
    ]


def _drift_message(roots: list[tuple[Step, list[tuple[str, Any, Any]]]]) -> str:
    lines: list[str] = []
    for step, leaves in roots:
        lines.append(f"{step.run.path / step.folder} was made with other settings:")
        lines += [f"  {key}: was {old!r}, now {new!r}" for key, old, new in leaves]
        if not leaves:
            lines.append("  made by another version of this stage, or from other inputs")
    redo = " ".join(f"--rebuild {name}" for name in dict.fromkeys(s.stage for s, _ in roots))
    lines.append(f"Either choose a new --run-dir, or redo it here: {redo}")
    return "\n".join(lines)


def differences(old: Any, new: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves at which two settings trees differ: (dotted key, old value, new value)."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [
            leaf
            for name in keys
            for leaf in differences(
                old.get(name), new.get(name), f"{key}.{name}" if key else str(name)
            )
        ]
    return [] if old == new else [(key, old, new)]
