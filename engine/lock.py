"""One writer per run directory: a lock file with a heartbeat.

The lock names the run, the host and the process and is touched every few seconds. A lock is taken
over whose process is seen to be gone, or whose heartbeat is old (another host). One of a host of
this name whose processes cannot be seen, as in a container beside this one or in this one before it
was started again, is watched for a few heartbeats.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock

from engine.errors import PoolscoreError, RunDirError
from engine.heartbeat import can_be_seen, is_gone, this_process
from engine.interrupts import giving_back, interrupt_main, taking_interrupts
from engine.rundir import LOCK, gone, make_root
from engine.storage import PATIENCE_SECONDS

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = PATIENCE_SECONDS + 60.0
"""Age of another host's heartbeat at which its run counts as dead: more than a run waits for
storage that is away."""
MISSED_HEARTBEATS = 3
"""After which a run counts as dead that is watched."""
MISSED_LOOKS = 2
"""After which a folder counts as gone: a network file system may stumble once."""


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the run directory, made here where it is not there, for the length of a ``with`` block.

    Raises:
        RunDirError: another live run holds it, or took it over from this one, which stops then; it
            cannot be made, or was renamed or removed; or the lock is a link, which would be
            written through.
    """
    make_root(folder)
    path, guard = folder / LOCK, folder / f"{LOCK}.guard"
    for file in (path, guard):
        if file.is_symlink():
            raise RunDirError(f"{file} is a link, to {file.resolve()}.\nRemove it.")
    owner = {"run": uuid.uuid4().hex, **this_process()}
    with FileLock(guard):  # look and take in one breath
        _refuse_if_held(path)
        path.write_text(json.dumps(owner))
    heart = _Heart(path, owner)
    itself = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # whatever its name
    heart.start()

    def release() -> None:
        with open(os.open(LOCK, os.O_RDONLY, dir_fd=itself)) as file:  # noqa: PTH123
            holds = json.load(file)
        if holds == owner:  # a run that slept past its heartbeat has lost the lock
            os.unlink(LOCK, dir_fd=itself)

    try:
        with giving_back(release), heart.taking_interrupts():
            yield
    except (KeyboardInterrupt, OSError, PoolscoreError) as error:
        # What fails first in a folder that has gone says only that some file is not there.
        if heart.gone or _identity(folder) != heart.folder:
            raise gone(folder) from None
        if heart.thief and isinstance(error, KeyboardInterrupt):
            thief = f"process {heart.thief['pid']} on {heart.thief['host']}"
            raise RunDirError(
                f"{folder} was taken over by {thief}, since this run gave no sign of life there "
                "for too long.\nThis run stops; nothing is lost, the other one goes on."
            ) from None
        raise
    finally:
        heart.join()
        with contextlib.suppress(OSError, ValueError):  # the run's own error matters more
            release()
        os.close(itself)


def holder(folder: Path) -> dict[str, Any]:
    """The process that runs there now, by what can be seen at once; empty where none does."""
    owner, age = _held(folder / LOCK)
    if not owner:
        return {}
    fresh = age < STALE_SECONDS
    lives = not is_gone(owner, trusts_start=not fresh) if can_be_seen(owner) else fresh
    return owner if lives else {}


def _refuse_if_held(path: Path) -> None:
    owner, age = _held(path)
    if not owner:
        return
    if _lives(path, owner, age):
        raise RunDirError(
            f"{path.parent} is in use by another run: process {owner['pid']} on {owner['host']}, "
            f"heartbeat {age:.0f} s ago.\nWait for it to end, or give this run its own --run-dir."
        )


def _lives(path: Path, owner: dict[str, Any], age: float) -> bool:
    fresh = age < STALE_SECONDS
    if can_be_seen(owner):
        return not is_gone(owner, trusts_start=not fresh)
    if owner.get("host") == socket.gethostname():
        return fresh and _beats(path)
    return fresh


def _beats(path: Path) -> bool:
    """Whether somebody touches the lock while it is watched; nobody does where it goes away."""
    end = time.monotonic() + MISSED_HEARTBEATS * HEARTBEAT_SECONDS
    with contextlib.suppress(FileNotFoundError):
        before = _touched(path)
        while time.monotonic() < end:
            time.sleep(HEARTBEAT_SECONDS / 10)
            if _touched(path) != before:
                return True
    return False


def _touched(path: Path) -> int:
    """Its time in nanoseconds; of a file not opened a network file system may tell an old one."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns


def _held(path: Path) -> tuple[dict[str, Any], float]:
    """The lock's owner (empty: nobody) and the age of its heartbeat in seconds."""
    try:
        return json.loads(path.read_text()), time.time() - path.stat().st_mtime
    except (FileNotFoundError, ValueError):
        return {}, 0.0


class _Heart(threading.Thread):
    """Touches the lock every few seconds; interrupts the run when somebody else holds it."""

    def __init__(self, path: Path, owner: dict[str, Any]) -> None:
        super().__init__(daemon=True)
        self.path, self.owner = path, owner
        self.stop = threading.Event()
        self.thief: dict[str, Any] = {}
        self.folder = _identity(path.parent)
        self.missed = 0
        self.may_interrupt = threading.current_thread() is threading.main_thread()

    @contextmanager
    def taking_interrupts(self) -> Iterator[None]:
        """Let SIGINT come through when it is this heart's; it stops before the handler goes."""
        ours = (
            taking_interrupts(lambda: self.thief or self.gone)
            if self.may_interrupt
            else nullcontext()
        )
        with ours:
            try:
                yield
            finally:
                self.stop.set()

    @property
    def gone(self) -> bool:
        """Whether the folder under this run was renamed or removed."""
        return self.missed >= MISSED_LOOKS

    def run(self) -> None:
        while not self.stop.wait(HEARTBEAT_SECONDS):
            self._look_for_the_folder()
            if self.gone:
                if self.may_interrupt:
                    interrupt_main()
                continue
            with contextlib.suppress(OSError):  # a network file system may stumble; beat on
                holder = _held(self.path)[0]
                if holder == self.owner:
                    os.utime(self.path)
                elif holder:
                    self.thief = holder
                    if self.may_interrupt:
                        interrupt_main()  # again and again: something may take it for itself

    def _look_for_the_folder(self) -> None:
        with contextlib.suppress(OSError):
            self.missed = 0 if _identity(self.path.parent) == self.folder else self.missed + 1


def _identity(folder: Path) -> tuple[int, int] | None:
    """What stays the same of a folder whatever its name; None where there is none of this name."""
    try:
        status = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino
