"""What runs on each training worker, inside Ray Train: an epoch, taken up where it can be."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pyarrow as pa

from engine import checkpoints, heartbeat, live, models
from engine.checkpoints import Checkpoints
from engine.errors import DamagedError, WorkerError
from engine.record import STATE_FOLDER
from engine.step import FINETUNE, STEPS_FILE, Step
from engine.training import StoppedEarly, Trainer
from engine.training_plan import plan_of
from engine.training_rows import load_rows
from engine.training_state import load_state, save_state, told_by_rank_0
from engine.wholeness import has_state


def train(step: Step, device: str, num_threads: int) -> None:
    """Train the step's epoch, and leave its folder but for the record; all workers call this.

    Told to stop (`checkpoints.ORDER_FILE`) it leaves a checkpoint behind the current step instead.
    """
    with contextlib.suppress(StoppedEarly):
        _train(step, device, num_threads)


def _train(step: Step, device: str, num_threads: int) -> None:
    config = step.config
    plan = plan_of(config, models.proxy_of(step), device, num_threads)
    with heartbeat.while_busy():
        trainer = Trainer(plan, load_rows(step))
        first = _resume(trainer, step)
    folder = step.run.path / step.folder
    news = folder / live.FILE
    interval = config.resources.checkpoint_seconds
    kept = folder / checkpoints.FOLDER / step.fingerprint
    orders = checkpoints.Orders(folder / checkpoints.ORDER_FILE)
    steps: pa.Table | None = None
    seconds = 0.0
    for epoch in range(first, step.epoch + 1):
        began = time.monotonic()
        # Epochs before this one are only walked through again where their state does not fit.
        own = first == epoch == step.epoch
        kept_here = Checkpoints(kept, interval) if own and interval is not None else None
        steps = trainer.epoch(
            epoch, lambda done, loss: live.tell(news, done, loss), kept_here, orders.say_stop
        )
        seconds = time.monotonic() - began
    with heartbeat.while_busy():
        saved = folder / ".saved"
        trainer.save(saved)
        if step.epoch < config.finetune.num_epochs:
            save_state(trainer.engine, trainer.plan, folder / STATE_FOLDER)
    if steps is not None:  # rank 0
        models.load_tokenizer(models.proxy_of(step)).save_pretrained(saved)
        _commit(step, saved, steps, trainer)
        live.tell(news, len(trainer.rows.ids), steps["loss"][-1].as_py(), seconds)


def _resume(trainer: Trainer, step: Step) -> int:
    """The first epoch to train: this one where the state before it can be taken up, else 1."""
    if step.epoch == 1:
        return 1
    folder = step.proxy_input(FINETUNE, step.epoch - 1)
    state = step.run.path / folder / STATE_FOLDER
    # What no record vouches for is not loaded; what one does was compared before this stage began.
    if not told_by_rank_0(has_state(step.run, folder)):
        return 1
    try:
        return step.epoch if load_state(trainer.engine, trainer.plan, state) else 1
    except DamagedError as error:
        raise WorkerError(f"{error}\nTrain from the start: --rebuild finetune") from None


def _commit(step: Step, saved: Path, steps: pa.Table, trainer: Trainer) -> None:
    for path in sorted(saved.iterdir()):
        step.run.commit_file(f"{step.folder}/{path.name}", path)
    saved.rmdir()
    losses = steps["loss"].to_pylist()
    receipt = {
        "steps": len(losses),
        "batch_size": trainer.batch_size,
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "zero_stage": trainer.plan.zero_stage,
        "activation_checkpointing": trainer.plan.activation_checkpointing,
    }
    step.commit(STEPS_FILE, steps, receipt)
