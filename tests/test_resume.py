"""A run that is killed and started again: the same bytes as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import pool_lines

from engine import open_run, rundir
from engine.step import EMBED


@pytest.fixture
def own(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of runs that have a home of their own and a folder for their Ray."""
    home = tmp_path / "home"
    home.mkdir()
    known = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    # Ray's sockets want a short path; what the killed run leaves there may still be written to.
    with tempfile.TemporaryDirectory(prefix="ps", dir="/tmp", ignore_cleanup_errors=True) as ray:
        yield {**known, "HOME": str(home), "RAY_TMPDIR": ray}


def start(pool: Path, run_dir: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    """``poolscore run … --until embed`` in a process of its own, with its own private Ray."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "engine", "run", str(pool), "--run-dir", str(run_dir)),
            *("--set", "pool.shard_rows=5", "--set", "resources.num_workers=1"),
            *("--max-reject-fraction", "0.1", "--until", "embed"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
def test_a_killed_driver_loses_nothing(tmp_path: Path, own: dict[str, str]) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text("\n".join(pool_lines()) + "\n", encoding="utf-8")
    finish(start(pool, tmp_path / "whole", own))

    killed = start(pool, tmp_path / "killed", own)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "killed" / EMBED).glob("part-*")):
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    lock = json.loads((tmp_path / "killed" / rundir.LOCK).read_text())
    assert lock["pid"] == killed.pid
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    assert not (tmp_path / "killed" / EMBED / rundir.RECORD).exists()

    finish(start(pool, tmp_path / "killed", own))
    for path in sorted((tmp_path / "whole").rglob("*.parquet")):
        again = tmp_path / "killed" / path.relative_to(tmp_path / "whole")
        assert again.read_bytes() == path.read_bytes(), path.name
    assert {s.step.stage: s.state for s in open_run(tmp_path / "killed").status().stages[:2]} == {
        "pool": "done",
        "embed": "done",
    }
    assert "done before" in finish(start(pool, tmp_path / "killed", own))
