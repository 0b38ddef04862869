"""One process of a training world: ``train_world.py FOLDER MODEL STAGE:DTYPE:EPOCHS …``.

Trains each case on the same made rows; rank 0 leaves losses, rows per step and the weights under
``FOLDER/world-stage-dtype-epochs``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from engine.checkpoints import Checkpoints
from engine.config import FinetuneConfig
from engine.errors import WorkerError
from engine.maths.ragged import Ragged
from engine.training import Trainer
from engine.training_plan import TrainingPlan
from engine.training_rows import TrainingRows
from engine.training_state import WORLD_FILE, load_state, save_state

NUM_ROWS = 45
BATCH_SIZE = 20


def make_rows() -> TrainingRows:
    """Rows of random tokens, 5 to 60 long, their last part scored."""
    random = np.random.default_rng(0)
    lengths = random.integers(5, 60, NUM_ROWS)
    return TrainingRows(
        ids=[f"{random.integers(2**60):032x}" for _ in range(NUM_ROWS)],
        row=np.arange(NUM_ROWS) * 3,
        input_ids=Ragged.of([random.integers(5, 200, n) for n in lengths]),
        scored=Ragged.of([np.arange(max(1, n // 2), n) for n in lengths]),
    )


def make_plan(model: Path, stage: int, dtype: str) -> TrainingPlan:
    config = FinetuneConfig(batch_size=BATCH_SIZE, num_epochs=2, schedule_epochs=2)
    return TrainingPlan(
        config=config,
        learning_rate=5e-3,
        schedule_epochs=2,
        weights=model,
        dtype=dtype,
        device="cpu",
        zero_stage=stage,
        micro_batch_tokens=256,
        activation_checkpointing=False,
        num_threads=1,
    )


class EnoughError(Exception):
    pass


def interrupted(trainer: Trainer, plan: TrainingPlan, folder: Path) -> tuple[Trainer, object]:
    """An epoch that ends before its third step, and another trainer that takes it up."""
    checkpoints = Checkpoints(folder, seconds=0)
    step, begun = trainer._step, []

    def limited(*arguments: object) -> object:
        begun.append(1)
        if len(begun) == 3:
            raise EnoughError
        return step(*arguments)

    trainer._step = limited
    try:
        trainer.epoch(1, lambda done, loss: None, checkpoints)
        raise AssertionError("it should not have ended")
    except EnoughError:
        assert [path.name for path in folder.iterdir()] == ["step-00000002"]
    dist.barrier()
    other, done = Trainer(plan, rows=trainer.rows), []
    table = other.epoch(1, lambda rows, loss: done.append(rows), checkpoints)
    assert done == ([] if dist.get_rank() else [NUM_ROWS])  # two steps were not done again
    return other, table


class Code:
    """What a pickle may run when it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> object:
        return Path.touch, (self.canary,)


def refuse_code(trainer: Trainer, state: Path) -> None:
    """A checkpoint with anything but numbers in it is not loaded."""
    assert load_state(trainer.engine, trainer.plan, state)
    files = sorted((state / (state / "latest").read_text()).glob("*.pt"))
    assert len(files) == (1 if trainer.plan.zero_stage == 0 else 2)
    for file in files:
        whole = file.read_bytes()
        torch.save({**torch.load(file, weights_only=False), "more": Code(state / "ran")}, file)
        with pytest.raises(WorkerError, match="is not loaded"):
            load_state(trainer.engine, trainer.plan, state)
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(WorkerError, match="is not loaded"):
            load_state(trainer.engine, trainer.plan, state)
        file.write_bytes(whole)
        assert load_state(trainer.engine, trainer.plan, state)
    assert not (state / "ran").exists()


def main() -> None:
    folder, model, *cases = sys.argv[1:]
    dist.init_process_group("gloo")
    rows = make_rows()
    for case in cases:
        stage, dtype, epochs = case.split(":")
        name = Path(folder) / f"{dist.get_world_size()}-{stage}-{dtype}-{epochs}"
        plan = make_plan(Path(model), int(stage), dtype)
        trainer = Trainer(plan, rows)
        if epochs == "killed":
            trainer, table = interrupted(trainer, plan, Path(folder) / f"kept-{stage}")
        else:
            table = trainer.epoch(1, lambda done, loss: None)
        extra = {}
        if epochs == "2":
            state = Path(folder) / f"state-{stage}"
            save_state(trainer.engine, trainer.plan, state)
            table = trainer.epoch(2, lambda done, loss: None)
            resumed = Trainer(plan, rows)
            assert load_state(resumed.engine, resumed.plan, state)
            again = resumed.epoch(2, lambda done, loss: None)
            world = state / WORLD_FILE
            world.write_text(world.read_text().replace('"world_size": 1', '"world_size": 7'))
            assert not load_state(resumed.engine, resumed.plan, state), (
                "a state of another world does not fit"
            )
            save_state(trainer.engine, trainer.plan, state)
            refuse_code(resumed, state)
            extra["resumed"] = np.asarray(again["loss"])
        trainer.save(name)
        if table is not None:
            width = max(map(len, table["rows"].to_pylist()))
            padded = [r + [-1] * (width - len(r)) for r in table["rows"].to_pylist()]
            numbers = {key: np.asarray(table[key]) for key in ("loss", "learning_rate")}
            np.savez(f"{name}.npz", **numbers, rows=np.array(padded), **extra)


if __name__ == "__main__":
    main()
