"""Training on two workers that is disturbed, against the same training left in peace."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from chaos_runs import NUM_ROWS, PROXY, SECONDS, Chaos, at_work, wait_for

from engine.checkpoints import FOLDER as CHECKPOINTS_FOLDER
from engine.models import load_language_model
from engine.step import FINETUNE, STEPS_FILE
from engine.training_state import WORLD_FILE

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
SEEDS = range(3)
TWO = ("--set", "resources.train_workers=2", "--until", "finetune")
TRAINED = f"{PROXY}/{FINETUNE}/epoch-1"


@pytest.fixture(scope="module")
def peaceful(chaos: Chaos) -> Path:
    run_dir = chaos.done_before(TRAINED, "two-workers")
    chaos.finish(chaos.start(run_dir, *TWO), run_dir)
    return run_dir / TRAINED


def refuse_difference(peaceful: Path, trained: Path) -> None:
    """The same weights, and each row in exactly one step."""
    states = [load_language_model(f, "float32", "cpu").state_dict() for f in (peaceful, trained)]
    for name, weight in states[0].items():
        torch.testing.assert_close(states[1][name], weight, atol=1e-6, rtol=0, msg=name)
    steps = pq.read_table(trained / STEPS_FILE)
    assert steps["step"].to_pylist() == list(range(len(steps)))
    rows = [row for rows in steps["rows"].to_pylist() for row in rows]
    assert sorted(rows) == list(range(NUM_ROWS))
    assert not (trained / CHECKPOINTS_FOLDER).exists()


def checkpoints(folder: Path, pattern: str) -> list[Path]:
    return list((folder / CHECKPOINTS_FOLDER).glob(f"*/{pattern}"))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_training_worker_is_killed(chaos: Chaos, peaceful: Path, seed: int) -> None:
    run_dir = chaos.done_before(TRAINED, f"rank-{seed}")
    number = random.Random(seed).randrange(1, 12)
    process = chaos.start(run_dir, *TWO)
    wait_for(lambda: checkpoints(run_dir / TRAINED, f"step-{number:08d}"), process)
    pid = wait_for(lambda: at_work(run_dir / TRAINED, f"rank-{seed % 2}.sign"), process)
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGKILL)
    chaos.finish(process, run_dir)
    refuse_difference(peaceful, run_dir / TRAINED)


def in_checkpoint(seed: int, kind: str) -> dict[str, Any]:
    """A fault between the files of a checkpoint, or before the checkpoint gets its name."""
    number = random.Random(10 + seed).randrange(2, 12)
    folder = f"{TRAINED}/{CHECKPOINTS_FOLDER}/*"
    if seed % 2:
        where = {"folders": {f"{folder}/.step-{number:08d}": 0}, "event": "open"}
        return {**where, "name": WORLD_FILE, "kind": kind}
    where = {"folders": {folder: 0}, "event": "os.rename"}
    return {**where, "name": f"step-{number:08d}", "kind": kind}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_worker_is_killed_during_a_checkpoint(chaos: Chaos, peaceful: Path, seed: int) -> None:
    """By a fault inside itself; the run goes on without help."""
    run_dir = chaos.done_before(TRAINED, f"checkpoint-{seed}")
    chaos.finish(chaos.start_with(in_checkpoint(seed, "kill"), run_dir, *TWO), run_dir)
    assert chaos.marks(run_dir)  # it happened
    refuse_difference(peaceful, run_dir / TRAINED)


@pytest.mark.parametrize("seed", range(2))
def test_the_driver_is_killed_during_a_checkpoint(chaos: Chaos, peaceful: Path, seed: int) -> None:
    run_dir = chaos.done_before(TRAINED, f"driver-checkpoint-{seed}")
    process = chaos.start_with(in_checkpoint(seed, "kill the driver"), run_dir, *TWO)
    assert process.wait(timeout=SECONDS) == -signal.SIGKILL
    chaos.finish(chaos.start(run_dir, *TWO), run_dir)
    refuse_difference(peaceful, run_dir / TRAINED)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_driver_is_killed_while_training(chaos: Chaos, peaceful: Path, seed: int) -> None:
    run_dir = chaos.done_before(TRAINED, f"train-driver-{seed}")
    process = chaos.start(run_dir, *TWO)
    number = random.Random(20 + seed).randrange(1, 12)
    wait_for(lambda: checkpoints(run_dir / TRAINED, f"step-{number:08d}"), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    chaos.finish(chaos.start(run_dir, *TWO), run_dir)
    refuse_difference(peaceful, run_dir / TRAINED)


def test_a_training_worker_stands_still(chaos: Chaos, peaceful: Path) -> None:
    """It is not dead, so nobody restarts it: the run ends with a diagnosis, and can go on."""
    run_dir = chaos.done_before(TRAINED, "still")
    process = chaos.start(run_dir, *TWO, "--set", "resources.stall_seconds=20")
    wait_for(lambda: checkpoints(run_dir / TRAINED, "step-*"), process)
    pid = wait_for(lambda: at_work(run_dir / TRAINED, "rank-1.sign"), process)
    assert isinstance(pid, int)
    os.kill(pid, signal.SIGSTOP)
    assert process.wait(timeout=180) == 1
    told = run_dir.with_suffix(".log").read_text()
    assert "finetune epoch 1 hangs: no sign of life for 20 s" in told
    assert "where: rank-" in told
    chaos.finish(chaos.start(run_dir, *TWO), run_dir)
    refuse_difference(peaceful, run_dir / TRAINED)
