"""A finished (or unfinished) run directory as an object: scores, selection and records.

Tables come out as Arrow, and so as pandas (``.to_pandas()``), Polars (``pl.from_arrow``) or
``datasets`` (``Dataset(table)``). Nothing here needs a model or Ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa

from engine import rundir
from engine.config import Config, SelectConfig
from engine.errors import PoolscoreError, RunDirError
from engine.pipeline import plan
from engine.rundir import Record, RunDir
from engine.stages import select
from engine.step import REJECTED_FILE, REPORT_FILE, SELECTED_PARQUET, Step, is_whole

State = Literal["done", "part done", "missing", "drifted"]


@dataclass(frozen=True)
class StageStatus:
    """How far one step of a run is."""

    step: Step
    state: State
    record: Record | None
    shards_done: int
    shards_total: int


class Status(NamedTuple):
    """How far a run is."""

    stages: list[StageStatus]
    problem: str | None
    """Why the inputs could not be compared with the records, where they could not."""


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
        RunDirError: there is no run, or none of that proxy.
    """

    def __init__(self, path: str | Path, proxy: str | None = None) -> None:
        self.dir = RunDir(Path(path).expanduser().resolve())
        own = Path("proxies") / proxy if proxy is not None else Path()
        settings = self.dir.path / own / rundir.SETTINGS
        if not settings.exists():
            there = sorted(p.name for p in (self.dir.path / "proxies").glob("*"))
            raise RunDirError(
                f"{self.dir.path} holds no run{f' of a proxy {proxy!r}' if proxy else ''}: "
                f"there is no {settings.relative_to(self.dir.path)} in it."
                + (f"\nProxies there: {', '.join(there)}." if there else "")
            )
        self.config = Config.load(settings)
        self.steps = plan(self.config, self.dir, as_recorded=True)

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

    def scores(self) -> pa.Table:
        """One row per pool row (`schema.scores`)."""
        return self._shards("score")

    def selection(self) -> pa.Table:
        """The selected rows: score columns and `raw` (`schema.selection`)."""
        import pyarrow.parquet as pq

        step = self._finished("select")
        return pq.read_table(self.dir.path / step.folder / SELECTED_PARQUET)

    def select(self, config: SelectConfig, target: Path) -> Chosen:
        """Select again from the stored scores and write the rows to `target`.

        Args:
            config: size, metric and order.
            target: ``.jsonl`` (the pool's own lines) or ``.parquet`` (score columns and `raw`).

        Raises:
            ConfigError: the metric is no score column, or more is asked for than there is.
            RunDirError: the run has no scores yet, or `target` cannot be written.
        """
        self._finished("score")
        step = self.step("select")
        candidates, rows = select.choose(step, config)
        temporary = target.with_name(f".{target.name}.tmp")
        try:
            select.write(step, rows, temporary, target.suffix.removeprefix("."))
            temporary.replace(target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RunDirError(f"cannot write {target}: {error.strerror}") from None
        return Chosen(len(candidates.row), len(rows))

    def report(self) -> Path:
        """The report, an HTML page."""
        return self.dir.path / self._finished("report").folder / REPORT_FILE

    def status(self) -> Status:
        """How far each step is, measured against the pool and the models as they are now."""
        problem = None
        try:
            steps = plan(self.config, self.dir)
        except PoolscoreError as error:  # the pool or a model is gone: take the records' word
            steps, problem = self.steps, str(error)
        return Status([self._status(step) for step in steps], problem)

    def _status(self, step: Step) -> StageStatus:
        record = self.dir.record(step.folder)
        shards = step.shards()
        if record is not None:
            if record.fingerprint != step.fingerprint:
                return StageStatus(step, "drifted", record, len(shards), len(shards))
            if is_whole(step, record):
                return StageStatus(step, "done", record, len(shards), len(shards))
        done = len(shards) - len(step.missing())
        return StageStatus(step, "part done" if done else "missing", None, done, len(shards))

    def _finished(self, stage: str) -> Step:
        step = self.step(stage)
        record = self.dir.record(step.folder)
        if record is None:
            raise RunDirError(
                f"the stage {stage} of {self.dir.path} is not done. Run `poolscore run` with the "
                "same settings to finish it."
            )
        if record.inputs != dict(step.inputs):
            raise RunDirError(
                f"{self.dir.path / step.folder} was made from inputs that have changed since.\n"
                f"Run that proxy again: poolscore run … --rebuild {stage}"
            )
        return step

    def _shards(self, stage: str) -> pa.Table:
        step = self._finished(stage)
        return rundir.concat([step.read(step.folder, shard) for shard in step.shards()])


def open_run(path: str | Path, proxy: str | None = None) -> Run:
    """Open a run directory for reading; `proxy` picks one where several were scored."""
    return Run(path, proxy)
