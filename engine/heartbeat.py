"""Signs of life, so that work that takes long can be told from work that hangs.

Whatever works calls `beat`: for each batch, each optimizer step, each block of lines. A worker that
is `at_work` leaves its beats as the time of a small file in the run directory, where the driver's
guard (`stall`) sees them, whatever node it runs on; those of the driver itself stay in memory.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

FOLDER = ".working"
"""In the folder of a stage: one file for each piece of work in progress."""
WORK, SIGN, STACK = ".beat", ".sign", ".stack"
"""Suffixes: of work that has to beat; of what is only a sign that somebody lives, such as loading a
model; of the file into which a process writes its stacks when it gets SIGUSR1."""
DONE = ".rows"
"""Suffix of a file that says how many rows of a piece of work are done so far."""
SECONDS = 1.0
"""Least time between two beats that are written down."""
BUSY_SECONDS, BUSY_SHARE, BUSY_BYTES = 2.0, 0.02, 64 * 2**10
"""A process counts as busy that takes a fiftieth of a core, or moves so many bytes a time. To look
moves some as well: what Linux knows of a process it says in files."""
BOOT, PIDS = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")

_last = time.monotonic()
_file: Path | None = None
_num_done = 0
_unsigned: set[Path] = set()
"""Work at which no file could be left when it began."""


def beat(num_done: int = 0) -> None:
    """Say that this process gets on, and by how many rows; as often as one likes."""
    global _last, _num_done
    _num_done += num_done
    now = time.monotonic()
    if now - _last < SECONDS:
        return
    _last = now
    file = _file  # another thread may leave its work in this very moment
    if file is not None:
        with contextlib.suppress(OSError):  # a file system that stumbles must not stop the work
            if file in _unsigned:
                _sign(file)
                _unsigned.discard(file)
            os.utime(file)
            if _num_done:
                file.with_suffix(DONE).write_text(str(_num_done))


def rows_done(work: Path) -> int:
    """How many rows a process that is `at_work` has told of; 0 where it has not, or just now is."""
    try:
        return int(work.with_suffix(DONE).read_text())
    except (OSError, ValueError):
        return 0


def last_beat() -> float:
    """When this process last gave a sign of life, by `time.monotonic`."""
    return _last


@contextmanager
def at_work(path: Path) -> Iterator[None]:
    """Leave beats in a file for the length of a ``with`` block; one at a time in a process.

    Args:
        path: in a stage's `FOLDER`; ends in `WORK` or `SIGN`. Stays behind when the process dies,
            until whoever takes up the same work removes it.
    """
    global _file, _num_done
    stack = None
    _num_done = 0
    _unsigned.add(path)
    with contextlib.suppress(OSError):  # the first beats may make up for it
        _sign(path)
        _unsigned.discard(path)
        stack = path.with_suffix(STACK).open("w")
        # Answers even from a process that is stuck inside C code.
        faulthandler.register(signal.SIGUSR1, stack, all_threads=True)
    _file = path
    try:
        yield
    finally:
        _file = None
        _unsigned.discard(path)
        if stack is not None:
            faulthandler.unregister(signal.SIGUSR1)
            stack.close()
        remove(path)


@contextmanager
def signed(work: Path) -> Iterator[None]:
    """Leave this process's name at a piece of work, so that others see what it died over."""
    path = own_sign(work)
    with contextlib.suppress(OSError):
        _sign(path)
    try:
        yield
    finally:
        remove(path)


def own_sign(work: Path) -> Path:
    """A new file for a sign at work that other processes may be at as well."""
    return work.with_name(f"{work.name}-{uuid.uuid4().hex[:12]}{SIGN}")


def has_killed(work: Path) -> bool:
    """Whether a process that had `signed` it, and that can be seen from here, is gone."""
    return any(is_gone(owner(path)) for path in work.parent.glob(f"{work.name}-*{SIGN}"))


def _sign(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)  # of a run that was renamed nothing is made again
    path.write_text(json.dumps(this_process()))


def remove(path: Path) -> None:
    """Take back what a dead process left `at_work`."""
    for left in (path, path.with_suffix(STACK), path.with_suffix(DONE)):
        with contextlib.suppress(OSError):
            left.unlink(missing_ok=True)


def this_process() -> dict[str, Any]:
    """Who this is, so that others can tell whether it still lives."""
    started = psutil.Process().create_time()
    return {**_place(), "pid": os.getpid(), "started": started}


def _place() -> dict[str, str]:
    """Where a process's number means something; machines and containers may share a host's name."""
    namespace = ""
    with contextlib.suppress(OSError):  # Linux only
        namespace = f"{BOOT.read_text().strip()} {PIDS.readlink()}"
    return {"host": socket.gethostname(), "namespace": namespace}


def owner(path: Path) -> dict[str, Any]:
    """Who is `at_work`, as `this_process` gave it there; empty where it cannot be told."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def can_be_seen(owner: dict[str, Any]) -> bool:
    """Whether its process is on this machine, in the same container, since the last boot."""
    return all(owner.get(name) == value for name, value in _place().items())


def is_gone(owner: dict[str, Any], trusts_start: bool = True) -> bool:
    """Whether that process has ended; of one that cannot be seen from here nothing is known.

    Args:
        owner: as `this_process` gave it.
        trusts_start: another start time means another process. It moves with the system's clock,
            so a fresh sign of life says more.
    """
    if not can_be_seen(owner):
        return False
    pid = int(owner["pid"])
    try:
        process = psutil.Process(pid)
        started = process.create_time()
        if process.status() == psutil.STATUS_ZOMBIE:  # ended, though its parent has not looked
            return True
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
    trusts_start |= pid == os.getpid()  # which is not this process, but one before it
    return trusts_start and abs(started - owner.get("started", started)) > 1.0


@contextmanager
def while_busy() -> Iterator[None]:
    """Beat as long as this process is busy: around one long call that cannot beat by itself."""
    ended = threading.Event()
    thread = threading.Thread(target=_beat_while_busy, args=(ended,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _beat_while_busy(ended: threading.Event) -> None:
    before = _work_done()
    while not ended.wait(BUSY_SECONDS):
        now = _work_done()
        worked, moved = now[0] - before[0], now[1] - before[1]
        if worked > BUSY_SHARE * BUSY_SECONDS or moved > BUSY_BYTES:
            beat()
        before = now


def _work_done() -> tuple[float, int]:
    """Seconds of CPU, and bytes read and written, of this process so far."""
    process = psutil.Process()
    times = process.cpu_times()
    try:
        counted = process.io_counters()
        moved = counted.read_chars + counted.write_chars
    except (psutil.Error, OSError, AttributeError):  # not on every system
        moved = 0
    return times.user + times.system, moved
