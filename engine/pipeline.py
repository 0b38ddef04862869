"""The way through, and the loop that walks it.

`STAGES` is the story in one line. `plan` lays it out for one configuration: each stage's folder,
its inputs, and the fingerprint of all that its results depend on. `run` does what is missing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any

from engine import __version__, causality, heartbeat, interrupts, models, nodes, rundir, terminal
from engine.config import STAGE_NAMES, Config
from engine.errors import ConfigError, PoolscoreError, RunDirError, did_you_mean, how_to_install
from engine.failures import STORY_FILE, storage_error
from engine.lock import exclusive
from engine.progress import Progress, duration
from engine.provenance import commit, versions
from engine.record import Record
from engine.resolve import commits_told, settle
from engine.rundir import RunDir, gone
from engine.stages import cluster, embed, finetune, perplexity, pool, report, score, select, tokens
from engine.stall import guarded
from engine.step import (
    CLUSTER,
    EMBED,
    FINETUNE,
    PERPLEXITY,
    POOL,
    REPORT,
    SCORE,
    SELECT,
    TOKENS,
    UNDER_WAY,
    Outcome,
    Step,
    differences,
    proxy_folder,
    refuse_drift,
)
from engine.storage import is_storage_error
from engine.targets import refuse_run_dir
from engine.wholeness import lost, refuse_faults

STAGES = (pool, embed, cluster, tokens, perplexity, finetune, score, select, report)

_SHARD_BY_SHARD = (embed.NAME, tokens.NAME, perplexity.NAME)
_MODULES = {stage.NAME: stage for stage in STAGES}


def layout(config: Config) -> list[tuple[ModuleType, str, int, list[str]]]:
    """Every stage of a run in order: module, folder, epoch and the folders it reads."""
    own = proxy_folder(config)
    epochs = range(1, config.finetune.num_epochs + 1)
    tokens_, score_, select_ = f"{own}/{TOKENS}", f"{own}/{SCORE}", f"{own}/{SELECT}"
    measured = [f"{own}/{PERPLEXITY}/epoch-{epoch}" for epoch in range(len(epochs) + 1)]
    trained = [f"{own}/{FINETUNE}/epoch-{epoch}" for epoch in epochs]
    stages: list[tuple[ModuleType, str, int, list[str]]] = [
        (pool, POOL, 0, []),
        (embed, EMBED, 0, [POOL]),
        (cluster, CLUSTER, 0, [EMBED]),
        (tokens, tokens_, 0, [POOL]),
        (perplexity, measured[0], 0, [tokens_]),
    ]
    for epoch, weights in zip(epochs, trained, strict=True):
        before = trained[: epoch - 1][-1:]
        stages.append((finetune, weights, epoch, [POOL, tokens_, measured[0], *before]))
        reads = [POOL, tokens_, measured[epoch - 1], weights]
        stages.append((perplexity, measured[epoch], epoch, reads))
    stages += [
        (score, score_, 0, [POOL, CLUSTER, tokens_, *measured]),
        (select, select_, 0, [POOL, score_]),
        (report, f"{own}/{REPORT}", 0, [POOL, CLUSTER, tokens_, *trained, score_, select_]),
    ]
    return stages


def plan(config: Config, run: RunDir, as_recorded: bool = False) -> list[Step]:
    """Every step of a run in order, with its fingerprint. Runs nothing.

    Args:
        config: resolved settings.
        run: the run directory.
        as_recorded: take finished stages as their records describe them, so that a run can be
            read after its pool or its models are gone; else look at the inputs as they are now.
    """
    steps: list[Step] = []
    known: dict[str, str] = {}
    for stage, folder, epoch, reads in layout(config):
        record = run.record(folder) if as_recorded else None
        settings = record.settings if record else _settings(stage, config, run, epoch, as_recorded)
        inputs = {name: known[name] for name in reads}
        known[folder] = (
            record.fingerprint
            if record
            else rundir.fingerprint(stage.NAME, stage.VERSION, settings, inputs)
        )
        steps.append(Step(stage.NAME, folder, epoch, config, run, settings, inputs, known[folder]))
    return steps


def _settings(
    stage: ModuleType, config: Config, run: RunDir, epoch: int, may_fail: bool
) -> dict[str, Any]:
    try:
        return stage.settings(config, run, epoch)
    except PoolscoreError:
        if may_fail:  # the pool or a model is gone; what was finished can still be read
            return {}
        raise


def run(
    config: Config,
    run_dir: str | Path,
    until: str | None = None,
    rebuild: str | Sequence[str] = (),
    say: Callable[[str], None] = print,
    warn: Callable[[str], None] | None = None,
) -> RunDir:
    """Score a pool: do every stage that is missing, in order.

    Args:
        config: the settings; what depends on model and machine is filled in and recorded.
        run_dir: where everything is written; a run directory is resumed.
        until: stop after this stage (after its last epoch).
        rebuild: stages to redo, with what depends on them.
        say: takes each line meant for people.
        warn: takes each warning; `say` where it is not given.

    Raises:
        ConfigError, PoolError, ModelError: something named in the settings cannot be used.
        RunDirError: the directory was made with other settings, or is in use.
        WorkerError: a worker failed; what it said of itself, and where the whole story is.
    """
    rebuild = (rebuild,) if isinstance(rebuild, str) else tuple(rebuild)
    check_names(until, rebuild)
    warn = warn or say
    target = RunDir(local_path(run_dir))
    refuse_run_dir(config.pool.paths, target.path)
    with (
        interrupts.stopping(),
        _storage_errors_for_people(target),
        exclusive(target.path),
        _session(config) as cluster_nodes,
    ):
        target.sweep()
        (target.path / STORY_FILE).unlink(missing_ok=True)
        told: list[str] = []
        with _preparing("looking at the settings …", at_once=False):
            resolved = settle(config, cluster_nodes.device, target, rebuild, told.append)
        say(_headline(resolved, cluster_nodes))
        for text in told:
            warn(terminal.warning(text))
        with _preparing("looking at the pool and the models …"):
            steps = plan(resolved, target)
            gone = _rebuilt(steps, rebuild)
            kept = [step for step in steps if step.folder not in gone]
            # Drift of any of them is found before anything is removed or done.
            whole = dict(zip((step.folder for step in kept), refuse_drift(*kept), strict=True))
            last = max((i for i, s in enumerate(steps, 1) if s.stage == until), default=len(steps))
            todo = [step for step in steps[:last] if not whole.get(step.folder)]
            for step in todo:
                _check_space(step)
            warnings = check(resolved, {step.stage for step in todo}, cluster_nodes)
        for folder in sorted(gone):
            target.refuse_links(f"{folder}/any")
            target.clear(folder)
        for folder in (".", proxy_folder(resolved)):
            target.commit_changed(f"{folder}/{rundir.SETTINGS}", resolved.to_yaml().encode())
        for warning in warnings:
            warn(terminal.warning(warning))
        for line in commits_told(config, resolved):
            say(terminal.note(line))
        for number, step in enumerate(steps[:last], start=1):
            head = f"[{number}/{len(steps)}] {step.label:<19}"
            if whole.get(step.folder):
                say(f"{head} done before")
            else:
                _check_space(step)
                record = _do(step, cluster_nodes)
                say(f"{head} {_summary(record)}")
                for note in record.notes:
                    say(terminal.note(note))
                for warning in record.warnings:
                    warn(terminal.warning(warning))
                interrupts.refuse_to_go_on()
    return target


def _preparing(note: str, at_once: bool = True) -> AbstractContextManager[None]:
    """Say what goes on before the first stage: with large models it takes minutes."""
    return Progress("preparing", 0, "").ticking(note, at_once=at_once)


@contextmanager
def _session(config: Config) -> Iterator[nodes.Nodes]:
    with ExitStack() as held:
        with _preparing("starting Ray …"):
            cluster_nodes = held.enter_context(nodes.session(config.resources))
        yield cluster_nodes


def _do(step: Step, cluster_nodes: nodes.Nodes) -> Record:
    start = time.monotonic()
    module = _MODULES[step.stage]
    with Progress(step.label, 0, "").ticking("comparing what it reads …", at_once=False):
        for folder in step.inputs:
            refuse_faults(step.run, folder, digests=partial(step.loads, folder))
    _begin(step)
    step.run.refuse_links(f"{step.folder}/{heartbeat.FOLDER}/any")
    working = step.run.path / step.folder / heartbeat.FOLDER
    shutil.rmtree(working, ignore_errors=True)  # what an interrupted run was at
    with begun(step), guarded(step):
        outcome: Outcome = module.run(step, cluster_nodes)
    shutil.rmtree(working, ignore_errors=True)
    _refuse_change(module, step)
    entries = step.entries()
    record = Record(
        stage=step.stage,
        fingerprint=step.fingerprint,
        settings=dict(step.settings),
        inputs=dict(step.inputs),
        rows_in=outcome.rows_in,
        rows_out=outcome.rows_out,
        flags=dict(sorted(outcome.flags.items())),
        rejected=outcome.rejected,
        tokens=outcome.tokens,
        seconds=round(time.monotonic() - start, 3),
        peak_memory_bytes=outcome.peak_memory_bytes,
        workers=outcome.workers,
        files=entries,
        details=dict(outcome.details),
        notes=list(outcome.notes),
        warnings=list(outcome.warnings),
        versions=versions(),
        commit=commit(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    _refuse_lost_rows(step, record)
    step.run.commit_record(step.folder, record)
    (step.run.path / UNDER_WAY).unlink(missing_ok=True)
    return record


def _begin(step: Step) -> None:
    """Make ready for a stage: what lies there and is current is kept, and is no whole stage."""
    run, folder = step.run, step.folder
    record = run.record(folder)
    if record is not None:
        for fault in lost(run, folder, record):  # of another size: whatever it is, it is no shard
            (run.path / folder / fault.name).unlink(missing_ok=True)
        run.unmark(folder)
    run.refuse_links(f"{folder}/any")
    run.make(folder)
    step.tidy()


def _refuse_lost_rows(step: Step, record: Record) -> None:
    """Stop where what outlived a killed run has just written over a shard.

    Raises:
        RunDirError: the shards do not hold the rows that the stage has counted.
    """
    held = sum(record.files[shard].rows or 0 for shard in record.shards)
    if record.shards and held != record.rows_out:
        raise RunDirError(
            f"{step.run.path / step.folder} holds {held:,} of {record.rows_out:,} rows: another "
            "process writes there, as a worker of a killed run may.\nRun the same command again: "
            "it goes on where it was."
        )


@contextmanager
def begun(step: Step) -> Iterator[None]:
    """Leave a mark of what is under way, for `status`; and say what a stop means for it.

    Raises:
        interrupts.Stopped: as it came, with that in words.
    """
    with contextlib.suppress(OSError, RunDirError):  # of no use but to people
        step.run.commit(UNDER_WAY, step.folder.encode())
    try:
        yield
    except interrupts.Stopped as stopped:
        if stopped.note:
            raise
        raise interrupts.Stopped(stopped.number, _kept(step)) from None


def _kept(step: Step) -> str:
    """What the next run of a stage that is stopped now has to do again."""
    if step.stage not in _SHARD_BY_SHARD:
        return f"the same command begins {step.label} again, and keeps the stages before it"
    left, num_shards = len(step.missing()), len(step.shards())
    done = f"{num_shards - left} of {num_shards} shards of {step.label} are kept"
    return f"the same command goes on where it was: {done}"


def _refuse_change(module: ModuleType, step: Step) -> None:
    """Throw away what was made while a file under it changed: nobody knows what it was made of.

    Raises:
        RunDirError: names what is no longer what it was.
    """
    now = module.settings(step.config, step.run, step.epoch)
    changed = differences(dict(step.settings), now)
    if changed:
        step.run.clear(step.folder)
        raise RunDirError(
            f"{step.label}: what it read has changed while it ran; its results are thrown away:\n"
            + "".join(f"  {key}: was {old!r}, now {new!r}\n" for key, old, new in changed)
            + "Let the files come to rest, then run the same command again."
        )


def _rebuilt(steps: list[Step], rebuild: Sequence[str]) -> set[str]:
    """Folders of the stages that are to be redone and of everything made from them."""
    gone: set[str] = set()
    for step in steps:
        if step.stage in rebuild or gone.intersection(step.inputs):
            gone.add(step.folder)
    return gone


def check(config: Config, stages: Collection[str], cluster_nodes: nodes.Nodes) -> list[str]:
    """Find out in the first seconds what would else stop the run hours later; warnings of less.

    Args:
        config: resolved settings.
        stages: names of those that are to be done.
        cluster_nodes: where.
    """
    warnings: list[str] = []
    if "cluster" in stages and importlib.util.find_spec("faiss") is None:
        raise ConfigError(
            "faiss is not installed, and the clusters need it.\n"
            f"{how_to_install('cpu')}, or '.[gpu]' on a CUDA machine."
        )
    if "cluster" in stages:
        refuse_two_faisses([str(found.name) for found in distributions()])
    if "tokens" in stages:
        warnings += tokens.check(config)
    if "tokens" in stages or "perplexity" in stages:
        causality.check(config, cluster_nodes)
    if "finetune" in stages:
        finetune.check(config, cluster_nodes)
    if "select" in stages:
        select.check(config)
    return warnings


def refuse_two_faisses(packages: Iterable[str]) -> None:
    """Refuse a Python into which several builds of faiss are installed.

    They have one folder: whichever came last has written over the other's files.

    Args:
        packages: names of all that is installed.
    """
    found = sorted({name for name in packages if re.fullmatch(r"faiss[-_](cpu|gpu.*)", name)})
    if len(found) > 1:
        raise ConfigError(
            f"{' and '.join(found)} are both installed, and have overwritten parts of each other.\n"
            f"Remove them, then install one: pip uninstall -y {' '.join(found)}\n"
            f"{how_to_install('cpu')}, or '.[gpu]' on a CUDA machine."
        )


def check_names(until: str | None, rebuild: Sequence[str] = ()) -> None:
    """Refuse names that no stage has."""
    for option, name in (("--until", until), *(("--rebuild", name) for name in rebuild)):
        if name is not None and name not in STAGE_NAMES:
            meant = did_you_mean(name, STAGE_NAMES)
            raise ConfigError(
                f"{option} {name}: no such stage{meant}\nStages: {', '.join(STAGE_NAMES)}"
            )


def local_path(run_dir: str | Path) -> Path:
    """The run directory, absolute; refuses what no node could write to."""
    if "://" in str(run_dir):
        raise RunDirError(
            f"--run-dir {run_dir}: a run directory must be a path that every node sees.\n"
            "Mount the object store or use a shared file system; see docs/cluster.md."
        )
    try:
        path = Path(run_dir).expanduser().resolve()
        if path.exists() and not path.is_dir():
            raise RunDirError(f"--run-dir {path} is a file. Name a folder.")
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # no access, a ring of links, no such ~user
        why = getattr(error, "strerror", None) or error
        raise RunDirError(f"--run-dir {run_dir} cannot be used: {why}. Name a folder.") from None
    return path


MIN_FREE_BYTES = 512 * 2**20
STATE_FACTOR = 4
"""Where another epoch follows, and for the last two checkpoints, DeepSpeed's state (master weights,
two moments) is written beside the float32 weights, and takes up to so many times as much."""


def _check_space(step: Step) -> None:
    need = MIN_FREE_BYTES
    if step.stage == "finetune":
        follows = step.epoch < step.config.finetune.num_epochs
        checkpoints = step.config.resources.checkpoint_seconds is not None
        weights = models.proxy_source(step.config).local_bytes("float32")
        need += weights * (1 + STATE_FACTOR * (follows + 2 * checkpoints))
    free = shutil.disk_usage(step.run.path).free
    if free < need:
        raise RunDirError(
            f"only {free / 2**20:,.0f} MB are free on the disk of {step.run.path}, and the stage "
            f"{step.label} wants at least {need / 2**20:,.0f} MB.\nFree some space and run the "
            "same command again: it goes on where it stopped."
        )


@contextmanager
def _storage_errors_for_people(run: RunDir) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not run.path.is_dir():
            raise gone(run.path) from None
        if not is_storage_error(error):
            raise
        raise storage_error(f"the run in {run.path} stops", error) from None


def _headline(config: Config, cluster_nodes: nodes.Nodes) -> str:
    return (
        f"poolscore {__version__}: proxy {config.proxy_name} in {config.proxy.dtype} on "
        f"{cluster_nodes.in_words()}"
    )


def _summary(record: Record) -> str:
    parts = [f"{record.rows_out:,} rows"]
    if record.num_flagged:
        parts.append(f"{record.num_flagged:,} flagged")
    if record.rejected:
        parts.append(f"{record.rejected:,} lines rejected")
    if record.tokens:
        parts.append(f"{record.tokens:,} tokens")
    return f"{', '.join(parts)} in {duration(record.seconds)}"
