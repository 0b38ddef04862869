"""How far ``poolscore plan`` is off the real run, stage by stage and in all.

Run as ``python -m benchmarks.plan [--rows N]``: estimates the first N rows of the pool (300;
0 for the whole pool), then scores them with the bundled models, and compares the seconds that the
stages record. Aim: the total within 25%.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness import Row, first_lines, limit, publish
from engine import pipeline
from engine.config import Config
from engine.estimate import Estimate, estimate
from engine.plan_table import table
from engine.results import Run, open_run

AIM = 0.25
LONG_SECONDS = 5.0
"""Shorter stages are part of the total only."""


def main() -> None:
    """Estimate, run, compare."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=300, help="rows of the pool; 0 for all")
    num_rows = options.parse_args().rows
    with TemporaryDirectory(prefix="poolscore-bench-") as folder:
        pool = first_lines(Path(folder), num_rows)
        config = Config(pool={"paths": [str(pool)]})  # type: ignore[arg-type]
        found = estimate(config)
        print(table(found), flush=True)
        began = time.perf_counter()
        pipeline.run(config, Path(folder) / "run")
        seconds = time.perf_counter() - began
        publish("plan", _compare(found, open_run(Path(folder) / "run"), seconds))


def _compare(found: Estimate, run: Run, seconds: float) -> list[Row]:
    """A row per stage that takes its time, one for the counts, one for the total."""
    rows: list[Row] = []
    records = run.records()
    wrong_counts = 0
    for said, step in zip(found.stages, run.steps, strict=True):
        record = records[step.folder]
        wrong_counts += said.rows != record.rows_out
        if max(said.seconds, record.seconds) >= LONG_SECONDS:
            rows.append(
                limit(
                    said.label,
                    "",
                    f"{_off(said.seconds, record.seconds)}; memory "
                    f"{_off(said.memory_bytes / 2**20, record.peak_memory_bytes / 2**20, 'MB')}",
                    None,
                    said_seconds=said.seconds,
                    real_seconds=record.seconds,
                )
            )
    rows.append(limit("stages whose number of rows is off", "", str(wrong_counts), None))
    rows.append(limit("the probe itself", "≤ 90 s", f"{found.probe_seconds:.0f} s", None))
    off = abs(found.seconds / seconds - 1)
    rows.append(
        limit(
            "total seconds",
            f"± {AIM:.0%}",
            _off(found.seconds, seconds),
            off <= AIM,
            said=found.seconds,
            real=seconds,
        )
    )
    return rows


def _off(said: float, real: float, unit: str = "s") -> str:
    return f"{said:,.0f} against {real:,.0f} {unit} ({said / real - 1:+.0%})"


if __name__ == "__main__":
    sys.exit(main())
