"""A pool five times the object store, and a driver that does not grow with the pool."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest
from chaos_runs import Chaos

from engine.nodes import OBJECT_STORE_BYTES
from engine.step import POOL

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
MEGABYTE = 2**20
ROW_BYTES = 8192


def write_pool(path: Path, megabytes: int) -> int:
    num_rows = megabytes * MEGABYTE // ROW_BYTES
    text = "seven letters of no interest, " * (ROW_BYTES // 30)
    with path.open("w") as file:
        for number in range(num_rows):
            row = {"prompt": f"Number {number}?", "response": text}
            file.write(json.dumps(row) + "\n")
    return num_rows


def peak_mb(chaos: Chaos, run_dir: Path, pool: Path) -> float:
    """Largest resident memory of the driver while it ingests a pool."""
    process = chaos.start(run_dir, "--until", "pool", pool=pool)
    driver, peak = psutil.Process(process.pid), 0.0
    while process.poll() is None:
        try:
            peak = max(peak, driver.memory_info().rss / MEGABYTE)
        except psutil.NoSuchProcess:
            break
        psutil.wait_procs([driver], timeout=0.2)
    chaos.finish(process, run_dir)
    return peak


def test_a_pool_larger_than_the_object_store(chaos: Chaos, tmp_path: Path) -> None:
    store = OBJECT_STORE_BYTES // MEGABYTE  # of a private Ray
    sizes = {"small": 10, "large": 5 * store}
    peaks = {}
    for name, megabytes in sizes.items():
        pool = tmp_path / f"{name}.jsonl"
        num_rows = write_pool(pool, megabytes)
        run_dir = tmp_path / name
        peaks[name] = peak_mb(chaos, run_dir, pool)
        record = json.loads((run_dir / POOL / "_stage.json").read_text())
        assert record["rows_out"] == num_rows
    assert peaks["large"] - peaks["small"] < 150
