"""Disks that are full, folders that may not be written to, storage that goes away, writers that
die or hang: in each stage, where it commits its files.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from chaos_runs import ONE, PROXY, SECONDS, Chaos

from engine.config import Config
from engine.pipeline import layout
from engine.rundir import RECORD
from engine.stages import perplexity
from engine.step import EMBED, FINETUNE, PERPLEXITY, STEPS_FILE, TOKENS

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
CONFIG = Config.model_validate({"proxy": {"name": Path(PROXY).name}})
FOLDERS = [
    folder
    for stage, folder, epoch, _ in layout(CONFIG)
    if stage is not perplexity or epoch == 0  # after the training it is the same code
]
each_stage = pytest.mark.parametrize("folder", FOLDERS)
"""All on one run directory: what one test has broken, the next one's run mends before it breaks
the stage after it."""
COMMITTED = ".*.tmp"


def start(chaos: Chaos, run_dir: Path, *more: str, **fault: Any) -> subprocess.Popen[str]:
    """A run in which something happens; by default where a file is flushed before its rename."""
    return chaos.start_with({"event": "open", "name": COMMITTED, **fault}, run_dir, *ONE, *more)


def refused(process: subprocess.Popen[str], run_dir: Path, folder: str) -> str:
    """What a run says that has to fail in a stage, on one screen, leaving no record there."""
    assert process.wait(timeout=SECONDS) == 1
    told = run_dir.with_suffix(".log").read_text().rpartition("error: ")[2]
    assert not (run_dir / folder / RECORD).exists()
    assert "Traceback" not in told
    assert len(told.splitlines()) < 24
    return told


def end(chaos: Chaos, run_dir: Path, folder: str) -> None:
    """After the last stage: everything is what it is without faults."""
    if folder == FOLDERS[-1]:
        chaos.finish(chaos.start(run_dir, *ONE), run_dir)
        chaos.refuse_difference(run_dir)


@each_stage
def test_the_disk_is_full(chaos: Chaos, folder: str) -> None:
    run_dir = chaos.folder / "full"
    process = start(chaos, run_dir, kind="full", folders={folder: 0})
    assert "No space left on device" in refused(process, run_dir, folder)
    end(chaos, run_dir, folder)


def as_an_ordinary_user() -> None:
    """In a new process: root may write anywhere, unless what allows that is taken from it."""
    PR_CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # noqa: N806  names of the system's headers
    if os.geteuid() == 0:
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0)


@each_stage
def test_a_folder_may_not_be_written_to(chaos: Chaos, folder: str) -> None:
    run_dir = chaos.folder / "denied"
    (run_dir / folder).mkdir(parents=True, exist_ok=True)
    (run_dir / folder).chmod(0o555)
    process = chaos.start(run_dir, *ONE, preexec_fn=as_an_ordinary_user)
    told = refused(process, run_dir, folder)
    assert "Permission denied" in told
    assert f"{run_dir / folder}" in told
    (run_dir / folder).chmod(0o755)
    end(chaos, run_dir, folder)


@each_stage
def test_a_writer_hangs(chaos: Chaos, folder: str) -> None:
    run_dir = chaos.folder / "hang"
    few = ("--set", "resources.stall_seconds=15")
    process = start(chaos, run_dir, *few, kind="hang", folders={folder: 0})
    assert "hangs: no sign of life for 15 s" in refused(process, run_dir, folder)
    end(chaos, run_dir, folder)


@each_stage
def test_a_writer_is_killed_at_the_record(chaos: Chaos, folder: str) -> None:
    """Between the last shard and the record, then, in the next run, before the record's rename: in
    both the stage is not there for any reader.
    """
    run_dir = chaos.folder / "record"
    for event, name in (("open", f".{RECORD}.*.tmp"), ("os.rename", RECORD)):
        process = start(chaos, run_dir, kind="kill", folders={folder: 0}, event=event, name=name)
        assert process.wait(timeout=SECONDS) == -9
        assert not (run_dir / folder / RECORD).exists()
        chaos.look(run_dir)
    end(chaos, run_dir, folder)


def test_a_full_disk_ends_the_training_at_once(chaos: Chaos) -> None:
    """Where there is room for what the worker has to say, as there is once half a model is gone."""
    (folder,) = (each for each in FOLDERS if FINETUNE in each)
    run_dir = chaos.done_before(folder, "last-bytes")
    process = start(chaos, run_dir, kind="full", folders={folder: 0}, name=f".{STEPS_FILE}.*.tmp")
    assert "No space left on device" in refused(process, run_dir, folder)
    assert chaos.marks(run_dir) == {folder: "."}
    chaos.finish(chaos.start(run_dir, *ONE), run_dir)
    chaos.refuse_difference(run_dir)


def test_writers_are_killed_before_their_files_have_names(chaos: Chaos) -> None:
    """The first commit of each stage whose files are committed on workers; they are restarted."""
    run_dir = chaos.folder / "commit"
    on_workers = {folder: 0 for folder in FOLDERS if TOKENS in folder or PERPLEXITY in folder}
    process = start(chaos, run_dir, kind="kill", folders={EMBED: 0, **on_workers})
    chaos.finish(process, run_dir)
    chaos.refuse_difference(run_dir)


def test_the_storage_is_away_in_each_stage(chaos: Chaos) -> None:
    """For a minute in one of them, for five seconds in the others."""
    run_dir = chaos.folder / "away"
    seconds = {**dict.fromkeys(FOLDERS, 5), EMBED: 60}
    patient = ("--set", "resources.stall_seconds=120")
    process = start(chaos, run_dir, *patient, kind="away", folders=seconds)
    chaos.finish(process, run_dir)
    chaos.refuse_difference(run_dir)
    assert chaos.marks(run_dir).keys() == set(FOLDERS)
