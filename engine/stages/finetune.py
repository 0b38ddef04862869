"""6 finetune: one epoch of the proxy over the pool, by Ray Train and DeepSpeed ZeRO.

Reads ``4-tokens``, ``1-pool`` for the split and ``5-perplexity/epoch-0`` for rows that cannot be
scored, and so not be trained on; writes ``epoch-N/`` as a Hugging Face folder
(config.json, safetensors, tokenizer) and ``steps.parquet`` (`schema.STEPS`: which rows each
optimizer step saw, its loss and learning rate). Only ``ok`` rows of the training split take part.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from engine import heartbeat, models, schema
from engine.columns import equals, to_ragged
from engine.config import Config
from engine.errors import ConfigError, PoolscoreError, WorkerError
from engine.failures import for_people
from engine.nodes import Nodes
from engine.parallel import peak_memory_bytes
from engine.progress import Progress
from engine.rundir import RECORD, RunDir
from engine.step import FINETUNE, PERPLEXITY, POOL, STEPS_FILE, TOKENS, Outcome, Step

if TYPE_CHECKING:
    from engine.training import TrainingPlan

NAME = "finetune"
VERSION = 2
STATE_FOLDER = "state"
LIVE_FILE = ".live"
RAY_FOLDER = ".ray"
CHECKPOINTS_FOLDER = ".checkpoints"
ERROR_FILE = ".error"
MAX_FAILURES = 3
"""Times that Ray Train starts all workers again after one has died."""
POLL_SECONDS = 0.5


def settings(config: Config, run: RunDir, epoch: int) -> dict[str, Any]:
    """Every setting of the training, the proxy by content, and the precision."""
    return {
        **config.finetune.model_dump(mode="json", exclude={"num_epochs"}),
        "model": models.proxy_source(config).identity(run),
        "dtype": config.proxy.dtype,
        "epoch": epoch,
    }


@dataclass(frozen=True)
class _Job:
    """What each training worker is told."""

    step: Step
    device: str
    num_threads: int


def run(step: Step, nodes: Nodes) -> Outcome:
    """Train this epoch on Ray Train, after the one before it where there is one."""
    job = _Job(step, nodes.device, nodes.cpus_per_train_worker)
    num_rows, num_tokens = _size(step)
    if not num_rows:
        raise ConfigError(
            "no row can be trained on: every row is flagged or held out. See `poolscore status`, "
            "and the flags in 1-pool and 4-tokens."
        )
    _clear_all_but_checkpoints(step)
    shutil.rmtree(step.run.path / RAY_FOLDER, ignore_errors=True)
    live = step.run.path / step.folder / LIVE_FILE
    watcher = _Watcher(live, Progress(step.label, num_rows, "rows"))
    try:
        with for_people(step):
            _fit(job, nodes)
        _raise_told(step)
    finally:
        watcher.stop()
        live.unlink(missing_ok=True)
        shutil.rmtree(step.run.path / RAY_FOLDER, ignore_errors=True)
    shutil.rmtree(step.run.path / step.folder / CHECKPOINTS_FOLDER, ignore_errors=True)
    receipt = step.run.receipt(step.folder, STEPS_FILE)
    return Outcome(
        rows_in=sum(step.run.num_rows(POOL, shard) for shard in step.shards()),
        rows_out=num_rows,
        flags={schema.OK: num_rows},
        tokens=num_tokens,
        workers=nodes.train_workers,
        peak_memory_bytes=watcher.peak_memory_bytes,
        details={**receipt, "epoch_seconds": round(watcher.epoch_seconds, 3)},
    )


def _clear_all_but_checkpoints(step: Step) -> None:
    """Remove what an interrupted run left, the checkpoints of this very training aside."""
    folder = step.run.path / step.folder
    kept = folder / CHECKPOINTS_FOLDER
    kept.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    for path in (*folder.iterdir(), *kept.iterdir()):
        if path in (kept, kept / step.fingerprint):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def check(config: Config, nodes: Nodes) -> None:
    """Refuse, before any work, what could never train.

    Raises:
        ConfigError: ZeRO 0 in bfloat16, or more workers than there are GPUs or cores for.
    """
    if config.resources.zero_stage == 0 and config.proxy.dtype == "bfloat16":
        raise ConfigError(
            "resources.zero_stage = 0 with bfloat16 would train without float32 master weights. "
            "Use zero_stage 1, 2 or 3, or proxy.dtype=float32."
        )
    if nodes.gpus_per_worker and not nodes.may_grow and nodes.train_workers > nodes.num_gpus:
        raise ConfigError(
            f"resources.train_workers = {nodes.train_workers}, but there are {nodes.num_gpus} "
            "GPUs, and each training worker takes one."
        )
    if not nodes.may_grow and nodes.train_workers * nodes.cpus_per_train_worker > nodes.num_cpus:
        raise ConfigError(
            f"resources.train_workers = {nodes.train_workers}, but there are {nodes.num_cpus} CPU "
            "cores, and each training worker takes at least one."
        )


def _fit(job: _Job, nodes: Nodes) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpu = nodes.device == "cuda"
    environment = {"DS_ACCELERATOR": "cuda" if gpu else "cpu"}
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(
            # Longer than the driver's own patience, which says more about what hangs.
            backend="nccl" if gpu else "gloo",
            timeout_s=2 * job.step.config.resources.stall_seconds + 60,
        ),
        scaling_config=ScalingConfig(
            num_workers=nodes.train_workers,
            use_gpu=gpu,
            resources_per_worker={
                "CPU": nodes.cpus_per_train_worker,
                **({"GPU": 1} if gpu else {}),
            },
        ),
        run_config=RunConfig(
            name="train",
            storage_path=str(job.step.run.path / RAY_FOLDER),
            worker_runtime_env={"env_vars": environment},
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    # Ray Train takes Ctrl-C for itself: it never gives it back, and ends the process with code 0.
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit()
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _train_worker(told: dict[str, Any]) -> None:
    """What runs on each training worker."""
    import torch.distributed as dist

    job: _Job = told["job"]
    folder = job.step.run.path / job.step.folder
    failed = [(folder / ERROR_FILE).exists()]
    dist.broadcast_object_list(failed)
    if failed[0]:
        return  # Ray Train starts all workers again after an error, and it would come again
    # Workers wait for one another: only the silence of all of them means anything.
    working = folder / heartbeat.FOLDER / f"rank-{dist.get_rank()}{heartbeat.SIGN}"
    try:
        with heartbeat.at_work(working):
            _train(job)
    except PoolscoreError as error:
        job.step.run.commit(f"{job.step.folder}/{ERROR_FILE}", str(error).encode())
        raise


def _train(job: _Job) -> None:
    from engine.training import Checkpoints, Trainer

    step, config = job.step, job.step.config
    plan = training_plan(config, job.device, job.num_threads)
    with heartbeat.while_busy():
        trainer = Trainer(plan, load_rows(step))
        first = _resume(trainer, step)
    folder = step.run.path / step.folder
    live = folder / LIVE_FILE
    interval = config.resources.checkpoint_seconds
    kept = folder / CHECKPOINTS_FOLDER / step.fingerprint
    steps: pa.Table | None = None
    seconds = 0.0
    for epoch in range(first, step.epoch + 1):
        began = time.monotonic()
        # Epochs before this one are only walked through again where their state does not fit.
        own = first == epoch == step.epoch
        checkpoints = Checkpoints(kept, interval) if own and interval is not None else None
        steps = trainer.epoch(epoch, lambda done, loss: _tell(live, done, loss), checkpoints)
        seconds = time.monotonic() - began
    with heartbeat.while_busy():
        saved = folder / ".saved"
        trainer.save(saved)
        if step.epoch < config.finetune.num_epochs:
            trainer.save_state(folder / STATE_FOLDER)
    if steps is not None:  # rank 0
        models.load_tokenizer(models.proxy_source(config)).save_pretrained(saved)
        _commit(step, saved, steps, trainer.plan)
        _tell(live, len(trainer.rows.ids), steps["loss"][-1].as_py(), seconds)


def _raise_told(step: Step) -> None:
    """Raise the error that a training worker left for people."""
    with contextlib.suppress(FileNotFoundError):
        raise WorkerError((step.run.path / step.folder / ERROR_FILE).read_text())


def training_plan(config: Config, device: str, num_threads: int) -> TrainingPlan:
    """What one training worker needs to know of resolved settings."""
    from engine.training import TrainingPlan

    assert config.finetune.learning_rate is not None, "resolved before a run"
    assert config.finetune.schedule_epochs is not None, "resolved before a run"
    assert config.resources.micro_batch_tokens is not None, "resolved before a run"
    return TrainingPlan(
        config=config.finetune,
        learning_rate=config.finetune.learning_rate,
        schedule_epochs=config.finetune.schedule_epochs,
        weights=models.proxy_source(config).folder(),
        dtype=config.proxy.dtype,
        device=device,
        zero_stage=config.resources.zero_stage,
        micro_batch_tokens=config.resources.micro_batch_tokens,
        activation_checkpointing=config.resources.activation_checkpointing,
        num_threads=num_threads,
    )


def _resume(trainer: Any, step: Step) -> int:
    """The first epoch to train: this one where the state before it can be taken up, else 1."""
    state = step.run.path / step.proxy_input(FINETUNE, step.epoch - 1) / STATE_FOLDER
    return step.epoch if step.epoch > 1 and trainer.load_state(state) else 1


def _commit(step: Step, saved: Path, steps: pa.Table, plan: TrainingPlan) -> None:
    for path in sorted(saved.iterdir()):
        step.run.commit_file(f"{step.folder}/{path.name}", path)
    saved.rmdir()
    losses = steps["loss"].to_pylist()
    receipt = {
        "steps": len(losses),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "zero_stage": plan.zero_stage,
        "activation_checkpointing": plan.activation_checkpointing,
    }
    step.commit(STEPS_FILE, steps, receipt)


def load_rows(step: Step) -> Any:
    """Every row that takes part in training (`training.TrainingRows`)."""
    from engine.training import TrainingRows

    columns = ["id", "input_ids", "scored"]
    parts = [_training_part(step, shard, columns) for shard in step.shards()]
    table = pa.concat_tables(parts)
    return TrainingRows(
        ids=table["id"].to_pylist(),
        row=np.asarray(table["row"], dtype=np.int64),
        input_ids=to_ragged(table["input_ids"]),
        scored=to_ragged(table["scored"]),
    )


def _training_part(step: Step, shard: str, columns: list[str]) -> pa.Table:
    """`row` and some columns of 4-tokens, for the rows of one shard that are trained on."""
    pool = step.read(POOL, shard, ["row", "split"])
    tokens = step.read(step.proxy_input(TOKENS), shard, [*columns, "flag"])
    before = step.read(step.proxy_input(PERPLEXITY, 0), shard, ["nll_sum"])["nll_sum"]
    keep = equals(pool["split"], schema.TRAIN) & equals(tokens["flag"], schema.OK)
    # A row that broke the scorer, or made it give no number, would do the same here.
    keep &= np.isfinite(before.to_numpy())  # null becomes NaN
    table = tokens.replace_schema_metadata(None).append_column("row", pool["row"])
    return table.filter(pa.array(keep))


def _size(step: Step) -> tuple[int, int]:
    """Rows and tokens of one epoch."""
    columns = ["num_prompt_tokens", "num_response_tokens"]
    parts = [_training_part(step, shard, columns) for shard in step.shards()]
    tokens = sum(int(np.asarray(part[name]).sum()) for part in parts for name in columns)
    return sum(part.num_rows for part in parts), tokens


def _tell(live: Path, done: int, loss: float, epoch_seconds: float = 0.0) -> None:
    news = {
        "rows": done,
        "loss": loss,
        "peak_memory_bytes": peak_memory_bytes(),
        "epoch_seconds": epoch_seconds,
    }
    live.write_text(json.dumps(news))


class _Watcher:
    """Shows, on the driver, the progress that rank 0 leaves in a small file."""

    def __init__(self, live: Path, progress: Progress) -> None:
        self.live, self.progress = live, progress
        self.peak_memory_bytes, self.epoch_seconds = 0, 0.0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.stopped.wait(POLL_SECONDS):
            self._look()

    def _look(self) -> None:
        try:
            news = json.loads(self.live.read_text())
        except (OSError, ValueError):  # not there yet, or half written
            return
        self.peak_memory_bytes = news["peak_memory_bytes"]
        self.epoch_seconds = news["epoch_seconds"]
        if news["rows"] != self.progress.done:
            self.progress.at(news["rows"])

    def stop(self) -> None:
        """End the watch after a last look."""
        self.stopped.set()
        self.thread.join()
        self._look()
        self.progress.finish()
