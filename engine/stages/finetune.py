"""6 finetune: one epoch of the proxy over the pool, by Ray Train and DeepSpeed ZeRO.

Reads ``4-tokens``, ``1-pool`` for the split and ``5-perplexity/epoch-0`` for rows that cannot be
scored, and so not be trained on; writes ``epoch-N/`` as a Hugging Face folder
(config.json, safetensors, tokenizer) and ``steps.parquet`` (`schema.STEPS`: which rows each
optimizer step saw, its loss and learning rate). Only ``ok`` rows of the training split take part.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError

from engine import checkpoints, heartbeat, interrupts, live, models, schema, training_rows
from engine.config import Config
from engine.errors import ConfigError, RunDirError, WorkerError
from engine.failures import for_people, understood
from engine.maths import schedule
from engine.nodes import Nodes
from engine.progress import Progress
from engine.rundir import RECORD, RunDir
from engine.step import POOL, STEPS_FILE, Outcome, Step
from engine.storage import is_away, patiently

NAME = "finetune"
VERSION = 4
RAY_FOLDER = ".ray"
ERROR_FILE = ".error"
"""In the folder of an epoch: what a worker has to say to people."""
ABORT_SECONDS = 5.0
MAX_FAILURES = 3
"""Times that Ray Train starts all workers again after one has died."""


def settings(config: Config, run: RunDir, epoch: int) -> dict[str, Any]:
    """Every setting of the training, the proxy by content, and the precision.

    Where no batch size is set, what one is chosen by takes its place.
    """
    chosen_by = {"enough_steps": schedule.ENOUGH_STEPS, "batch_sizes": list(schedule.BATCH_SIZES)}
    return {
        **config.finetune.model_dump(mode="json", exclude={"num_epochs"}),
        "model": models.proxy_source(config).identity(run),
        "dtype": config.proxy.dtype,
        "epoch": epoch,
        **(chosen_by if config.finetune.batch_size is None else {}),
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
    num_rows, num_tokens = training_rows.size(step)
    if not num_rows:
        raise ConfigError(
            "no row can be trained on: every row is flagged or held out. See `poolscore status`, "
            "and the flags in 1-pool and 4-tokens."
        )
    _refuse_rate_0(step, num_rows)
    step.run.refuse_links(f"{RAY_FOLDER}/any")
    step.run.refuse_links(f"{step.folder}/{checkpoints.FOLDER}/{step.fingerprint}/any")
    patiently(partial(_clear_all_but_checkpoints, step))
    shutil.rmtree(step.run.path / RAY_FOLDER, ignore_errors=True)
    news = step.run.path / step.folder / live.FILE
    progress = Progress(step.label, num_rows, "rows")
    watcher = live.Watcher(news, progress)
    workers = f"{nodes.train_workers} worker{'s' * (nodes.train_workers > 1)}"
    try:
        with for_people(step), progress.ticking(f"starting {workers} …"):
            _fit(job, nodes)
        _raise_told(step)
        if not step.run.is_current(step.folder, STEPS_FILE, step.fingerprint):
            interrupts.refuse_to_go_on()
    except interrupts.Stopped as stopped:
        raise interrupts.Stopped(stopped.number, _kept(step)) from None
    finally:
        watcher.stop()
        with contextlib.suppress(OSError):  # what it said is known by now
            news.unlink(missing_ok=True)
            (news.parent / checkpoints.ORDER_FILE).unlink(missing_ok=True)
        shutil.rmtree(step.run.path / RAY_FOLDER, ignore_errors=True)
    shutil.rmtree(step.run.path / step.folder / checkpoints.FOLDER, ignore_errors=True)
    receipt = step.run.receipt(step.folder, STEPS_FILE)
    return Outcome(
        rows_in=sum(step.run.num_rows(POOL, shard) for shard in step.shards()),
        rows_out=num_rows,
        flags={schema.OK: num_rows},
        tokens=num_tokens,
        workers=nodes.train_workers,
        peak_memory_bytes=watcher.peak_memory_bytes,
        details={**receipt, "epoch_seconds": round(watcher.epoch_seconds, 3)},
        warnings=_few_steps(num_rows, receipt["steps"], receipt["batch_size"]),
    )


def _refuse_rate_0(step: Step, num_rows: int) -> None:
    """Refuse an epoch whose every step has the learning rate 0.

    Raises:
        ConfigError: the published schedule has but one step for this epoch, its first.
    """
    config = step.config.finetune
    assert config.schedule_epochs is not None, "resolved before a run"
    chosen = schedule.chosen_batch_size(num_rows)
    batch_size = config.batch_size or chosen
    rate = schedule.rate_by_step(
        num_rows, batch_size, config.schedule_epochs, config.warmup_fraction, config.schedule
    )
    steps = schedule.num_steps(num_rows, batch_size)
    if not any(rate(at) for at in range((step.epoch - 1) * steps, step.epoch * steps)):
        raise ConfigError(
            f"{step.label} would learn nothing: {num_rows:,} rows in batches of {batch_size} are "
            f"{steps} optimizer step{'' if steps == 1 else 's'}, and the published schedule gives "
            "its first step the learning rate 0.\n"
            "Use finetune.schedule=nonzero, or a smaller finetune.batch_size (without the setting "
            f"it would be {chosen})."
        )


def _few_steps(num_rows: int, steps: int, batch_size: int) -> list[str]:
    """A warning where an epoch is too short for its scores to mean much."""
    if steps >= schedule.ENOUGH_STEPS:
        return []
    smaller = batch_size > schedule.chosen_batch_size(num_rows)
    return [
        f"this epoch had only {steps} optimizer step{'' if steps == 1 else 's'} of up to "
        f"{batch_size} rows ({schedule.ENOUGH_STEPS} are wanted): the scores say little, since in "
        "so few steps a proxy learns what all rows share, and hardly what any one row holds. Take "
        "the hardest rows as examples to look at, not as a selection to train on. "
        + ("A smaller finetune.batch_size or more" if smaller else "More")
        + " rows give more steps."
    ]


def _clear_all_but_checkpoints(step: Step) -> None:
    """Remove what an interrupted run left, the checkpoints of this very training aside."""
    folder = step.run.path / step.folder
    kept = step.run.make(f"{step.folder}/{checkpoints.FOLDER}")
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
    order = job.step.run.path / job.step.folder / checkpoints.ORDER_FILE
    order.write_text(checkpoints.GO_ON)
    controllers: list[Any] = []

    def remember(controller: Any) -> None:
        controllers.append(controller)

    def ask() -> None:
        with contextlib.suppress(OSError):  # then it ends without a checkpoint
            order.write_text(checkpoints.STOP)

    # Ray Train would take Ctrl-C for itself, never give it back, and end the process with code 0.
    trainer._register_sigint_handler = remember
    try:
        with interrupts.asked_politely(ask):
            trainer.fit()
    except KeyboardInterrupt:
        for controller in controllers:  # on a Ray that goes on after this run, so would the workers
            with contextlib.suppress(RayError):
                ray.get(controller.abort.remote(), timeout=ABORT_SECONDS)
        raise


def _kept(step: Step) -> str:
    """What the next run has to do again of a training that is stopped now."""
    kept = step.run.path / step.folder / checkpoints.FOLDER / step.fingerprint
    num_steps = checkpoints.Checkpoints(kept, 0).last_step()
    if num_steps:
        return f"the same command goes on behind step {num_steps} of {step.label}"
    return (
        f"the same command begins {step.label} again, of which there is no checkpoint yet, and "
        "keeps the stages before it"
    )


def _train_worker(told: dict[str, Any]) -> None:
    """What runs on each training worker."""
    import torch.distributed as dist

    from engine.train_worker import train

    job: _Job = told["job"]
    folder = job.step.run.path / job.step.folder
    failed = [patiently((folder / ERROR_FILE).exists)]
    dist.broadcast_object_list(failed)
    if failed[0]:
        return  # Ray Train starts all workers again after an error, and it would come again
    # Workers wait for one another: only the silence of all of them means anything.
    working = folder / heartbeat.FOLDER / f"rank-{dist.get_rank()}{heartbeat.SIGN}"
    try:
        with heartbeat.at_work(working):
            train(job.step, job.device, job.num_threads)
    except Exception as error:
        # Storage that is away may be back by the time Ray Train has started the workers again.
        problem = None if is_away(error) else understood(job.step.label, error)
        if problem is not None:
            # A disk too full even for that is tried again too.
            with contextlib.suppress(OSError, RunDirError):
                job.step.run.commit(f"{job.step.folder}/{ERROR_FILE}", str(problem).encode())
        raise


def _raise_told(step: Step) -> None:
    """Raise the error that a training worker left for people."""
    with contextlib.suppress(FileNotFoundError):
        raise WorkerError(patiently((step.run.path / step.folder / ERROR_FILE).read_text))
