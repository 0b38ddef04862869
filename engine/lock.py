"""One writer per run directory: a lock file with a heartbeat.

The lock names the run, the host and the process and is touched every few seconds. A lock whose
process is gone (same host) or whose heartbeat is old (another host) is taken over.
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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from engine.errors import RunDirError
from engine.heartbeat import is_gone, this_process
from engine.rundir import LOCK

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the run directory for the length of a ``with`` block.

    Raises:
        RunDirError: another live run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    owner = {"run": uuid.uuid4().hex, **this_process()}
    with FileLock(f"{path}.guard"):  # look and take in one breath
        _refuse_if_held(path)
        path.write_text(json.dumps(owner))
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, owner, stop), daemon=True)
    heart.start()
    try:
        yield
    finally:
        stop.set()
        heart.join()
        with contextlib.suppress(OSError):  # the run's own error matters more
            if _held(path)[0] == owner:  # a run that slept past its heartbeat has lost the lock
                path.unlink(missing_ok=True)


def _refuse_if_held(path: Path) -> None:
    owner, age = _held(path)
    if not owner:
        return
    here = owner.get("host") == socket.gethostname()
    alive = _is_running(owner, age) if here else age < STALE_SECONDS
    if alive:
        raise RunDirError(
            f"{path.parent} is in use by another run: process {owner['pid']} on {owner['host']}, "
            f"heartbeat {age:.0f} s ago.\nWait for it to end, or give this run its own --run-dir."
        )


def _held(path: Path) -> tuple[dict[str, Any], float]:
    """The lock's owner (empty: nobody) and the age of its heartbeat in seconds."""
    try:
        return json.loads(path.read_text()), time.time() - path.stat().st_mtime
    except (FileNotFoundError, ValueError):
        return {}, 0.0


def _is_running(owner: dict[str, Any], age: float) -> bool:
    """Whether that very process lives: after a reboot its number may be another's.

    Start times move with the system's clock, so another one counts only without a heartbeat.
    """
    return not is_gone(owner) or (age < STALE_SECONDS and psutil.pid_exists(int(owner["pid"])))


def _beat(path: Path, owner: dict[str, Any], stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        with contextlib.suppress(OSError):  # a network file system may stumble; beat on
            if _held(path)[0] == owner:  # never another's, after this one was taken over
                os.utime(path)
