"""A finished (or unfinished) run directory as an object: scores, selection and records.

Tables come out as Arrow, and so as pandas (``.to_pandas()``), Polars (``pl.from_arrow``) or
``datasets`` (``Dataset(table)``). Nothing here needs a model or Ray.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from engine import checkpoints, heartbeat, lock, models, rundir
from engine.config import Config, SelectConfig
from engine.errors import ConfigError, PoolscoreError, RunDirError, beginning
from engine.pipeline import local_path, plan
from engine.record import Record
from engine.rundir import RunDir
from engine.stages import select
from engine.step import (
    POOL,
    REJECTED_FILE,
    REPORT_FILE,
    SELECTED_PARQUET,
    UNDER_WAY,
    Step,
    differences,
    is_whole,
)
from engine.targets import refuse_target, write_target
from engine.wholeness import Fault, altered, foreign, lost, refuse_faults

State = Literal["done", "running", "interrupted", "missing", "drifted"]


@dataclass(frozen=True)
class StageStatus:
    """How far one step of a run is."""

    step: Step
    state: State
    record: Record | None
    shards_done: int
    shards_total: int
    faults: tuple[str, ...] = ()
    """Files that are not what the record says, and what of the inputs has changed."""


class Status(NamedTuple):
    """How far a run is."""

    stages: list[StageStatus]
    problem: str | None
    """Why the inputs could not be compared with the records, where they could not."""
    holder: dict[str, Any]
    """The process that runs here now (`host`, `pid` …); empty where none does."""

    @property
    def is_as_recorded(self) -> bool:
        """Whether every finished stage is what its record says, as far as was looked."""
        sound = all(stage.state != "drifted" and not stage.faults for stage in self.stages)
        return self.problem is None and sound


class Chosen(NamedTuple):
    """How much a selection took."""

    num_candidates: int
    num_selected: int


class Run:
    """One run directory, opened for reading.

    Args:
        path: the run directory.
        proxy: name of the proxy's folder; without it the proxy of the latest run.

    Raises:
        RunDirError: there is no run, or none of that proxy, or a record or ``run.yaml`` in it
            cannot be used.
    """

    def __init__(self, path: str | Path, proxy: str | None = None) -> None:
        self.dir = RunDir(local_path(path))
        own = Path("proxies") / proxy if proxy is not None else Path()
        settings = self.dir.path / own / rundir.SETTINGS
        if not settings.exists():
            there = sorted(p.name for p in (self.dir.path / "proxies").glob("*"))
            raise RunDirError(
                f"{self.dir.path} holds no run{f' of a proxy {proxy!r}' if proxy else ''}: "
                f"there is no {settings.relative_to(self.dir.path)} in it."
                + (f"\nProxies there: {', '.join(there)}." if there else "")
            )
        try:
            self.config = Config.load(settings)
        except ConfigError as error:
            raise RunDirError(
                f"{settings} is damaged, or of another version of poolscore:\n"
                f"{beginning(str(error))}\n"
                "`poolscore run` with the settings of that run writes it anew."
            ) from None
        self.steps = plan(self.config, self.dir, as_recorded=True)

    def __repr__(self) -> str:
        records = self.records()
        pool = records.get(POOL)
        rows = f"{pool.rows_out:,} rows" if pool else "no rows yet"
        return (
            f"Run({str(self.dir.path)!r}, proxy={self.config.proxy_name!r}: {rows}, "
            f"{len(records)} of {len(self.steps)} stages done)"
        )

    def step(self, stage: str, epoch: int = 0) -> Step:
        """One step of the run, by stage name and epoch."""
        for step in self.steps:
            if step.stage == stage and step.epoch == epoch:
                return step
        raise KeyError(f"no stage {stage!r} with epoch {epoch}")

    def records(self) -> dict[str, Record]:
        """The records of finished stages, by folder."""
        found = {step.folder: self.dir.record(step.folder) for step in self.steps}
        return {folder: record for folder, record in found.items() if record is not None}

    def pool(self) -> pa.Table:
        """Every row of the pool (`schema.POOL`)."""
        return self._shards("pool")

    def rejected(self) -> pa.Table:
        """Lines that never became a row (`schema.REJECTED`)."""
        step = self._finished("pool")
        return step.read(step.folder, REJECTED_FILE).replace_schema_metadata(None)

    def scores(self, texts: bool = False) -> pa.Table:
        """One row per pool row (`schema.scores`).

        Args:
            texts: with each row's conversation beside its scores, as `turns` (`schema.TURN`).
        """
        scores = self._shards("score")
        if not texts:
            return scores
        turns = self._shards("pool", ["turns"])["turns"]
        return scores.append_column("turns", turns)

    def selection(self) -> pa.Table:
        """The selected rows: score columns and `raw` (`schema.selection`)."""
        step = self._finished("select")
        return self.dir.read_unmarked(step.folder, SELECTED_PARQUET)

    def select(self, config: SelectConfig, target: str | Path, force: bool = False) -> Chosen:
        """Select again from the stored scores and write the rows to `target`.

        Args:
            config: size, metric and order.
            target: ``.jsonl`` (the pool's own lines) or ``.parquet`` (score columns and `raw`).
            force: replace a file that is there.

        Raises:
            ConfigError: the metric is no score column, more is asked for than there is, or
                `target` is an input, a part of the run, or there already.
            RunDirError: the run has no scores yet, or is not whole, or `target` cannot be written.
        """
        target = Path(target)
        refuse_target(target, self.config, self.dir.path, force)
        self._finished("score")
        self._finished("pool")  # whose lines are selected
        step = self.step("select")
        candidates, rows = select.choose(step, config)
        suffix = target.suffix.removeprefix(".")
        write_target(target, lambda path: select.write(step, rows, path, suffix))
        return Chosen(len(candidates.row), len(rows))

    def report(self) -> Path:
        """The report, an HTML page."""
        return self.dir.path / self._finished("report").folder / REPORT_FILE

    def status(self, verify: bool = False) -> Status:
        """How far each step is, measured against the pool and the models as they are now.

        Args:
            verify: hash every file of the run, its pool and its models, whatever is remembered.
        """
        problem = None
        try:
            run = RunDir(self.dir.path, {}) if verify else self.dir
            steps = plan(self.config, run)
            if verify:
                models.proxy_source(self.config).refuse_altered(run)
        except PoolscoreError as error:  # the pool or a model is gone: take the records' word
            steps, problem = self.steps, str(error)
        stages = [self._status(step, verify) for step in steps]
        if verify:
            stages = [self._with_lost_record(stage, stages) for stage in stages]
        return Status(stages, problem, self.holder())

    def _with_lost_record(self, stage: StageStatus, stages: list[StageStatus]) -> StageStatus:
        """A fault where a finished stage was made from one that has no record any more."""
        folder = stage.step.folder
        users = [s.step.label for s in stages if s.record and folder in s.record.inputs]
        if self.dir.record(folder) is not None or not users:
            return stage
        fault = Fault(folder, rundir.RECORD, f"is missing, though {users[0]} was made from it")
        return replace(stage, faults=(*stage.faults, str(fault)))

    def _status(self, step: Step, verify: bool) -> StageStatus:
        record = self.dir.record(step.folder)
        pool = self.dir.record(POOL)
        if record is None:
            known = step.run.shards(POOL) if pool is None else pool.shards
            here = known if step.folder == POOL or pool is not None else []
            done = sum(self.dir.is_current(step.folder, s, step.fingerprint) for s in here)
            return StageStatus(step, self._unfinished(step, done), None, done, len(known))
        faults: list[Fault] = [
            *(gone := lost(self.dir, step.folder, record)),
            *foreign(self.dir, step.folder, record),
        ]
        if verify:
            sound = record.files.keys() - {fault.name for fault in gone}
            faults += altered(self.dir, step.folder, record, sorted(sound))
        told = tuple(map(str, faults))
        total = len(record.shards)
        if record.fingerprint != step.fingerprint:
            changed = differences(record.settings, dict(step.settings)) if step.settings else []
            told += tuple(f"{key}: was {old!r}, now {new!r}" for key, old, new in changed)
            return StageStatus(step, "drifted", record, total, total, told)
        if is_whole(step, record):
            return StageStatus(step, "done", record, total, total, told)
        done = sum(self.dir.is_current(step.folder, s, step.fingerprint) for s in record.shards)
        return StageStatus(step, self._unfinished(step, done), None, done, total, told)

    def _unfinished(self, step: Step, num_done: int) -> State:
        if self._under_way() == step.folder:
            return "running" if self.holder() else "interrupted"
        return "interrupted" if num_done or self._has_remains(step) else "missing"

    def holder(self) -> dict[str, Any]:
        """The process that runs here now (`host`, `pid` …); empty where none does."""
        return lock.holder(self.dir.path)

    def _under_way(self) -> str:
        try:
            return (self.dir.path / UNDER_WAY).read_text()
        except (OSError, ValueError):
            return ""

    def _has_remains(self, step: Step) -> bool:
        """Whether a run that was killed was at it: checkpoints, or signs of life."""
        folder = self.dir.path / step.folder
        left = (heartbeat.FOLDER, f"{checkpoints.FOLDER}/{step.fingerprint}")
        return any(next((folder / name).glob("*"), None) is not None for name in left)

    def _finished(self, stage: str) -> Step:
        step = self.step(stage)
        if self.dir.record(step.folder) is None:
            raise RunDirError(
                f"the stage {stage} of {self.dir.path} is not done. Run `poolscore run` with the "
                "same settings to finish it."
            )
        record = refuse_faults(self.dir, step.folder)
        if record.inputs != dict(step.inputs):
            raise RunDirError(
                f"{self.dir.path / step.folder} was made from inputs that have changed since.\n"
                f"Run that proxy again: poolscore run … --rebuild {stage}"
            )
        return step

    def _shards(self, stage: str, columns: list[str] | None = None) -> pa.Table:
        step = self._finished(stage)
        return rundir.concat([step.read(step.folder, shard, columns) for shard in step.shards()])


def open_run(path: str | Path, proxy: str | None = None) -> Run:
    """Open a run directory for reading; `proxy` picks one where several were scored."""
    return Run(path, proxy)
