"""The user's cache: models that were unpacked or converted once and serve every run.

`POOLSCORE_CACHE`, else `poolscore` in `XDG_CACHE_HOME`, else `~/.cache/poolscore`. Each machine has
its own, so a cluster's nodes do the same work once each, to the same bytes; a cache on shared
storage, named by the variable on every node, saves that.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from engine import heartbeat, staging
from engine.errors import ModelError
from engine.rundir import RunDir

VARIABLE = "POOLSCORE_CACHE"
_RECEIPT = ".whole.json"
"""Written last: sizes and times of the files, so that what was cut or changed is made anew."""
SPARE_BYTES = 256 * 2**20


def root() -> Path:
    """Where the cache lies; it need not be there.

    Raises:
        ModelError: it is a file, or nobody says where it is.
    """
    named, above = os.environ.get(VARIABLE), os.environ.get("XDG_CACHE_HOME")
    try:
        if named:
            place = Path(named).expanduser().absolute()
        else:
            place = (Path(above) if above else Path.home() / ".cache").absolute() / "poolscore"
    except RuntimeError:
        raise ModelError(f"there is no home folder to cache models in; set {VARIABLE}") from None
    if place.exists() and not place.is_dir():
        raise ModelError(f"{place} is to be the cache, and is a file. Set {VARIABLE} to a folder.")
    return place


def digest(path: Path) -> str:
    """SHA-256 of a file, remembered by its path, size and times.

    Raises:
        RunDirError: it is gone or unreadable.
    """
    return RunDir(root()).hash_files({"file": path})["file"]


def folder(name: str, num_bytes: int, make: Callable[[Path], None]) -> Path:
    """A folder of the cache, made where it is not there or not as it was made.

    Processes that want the same one wait for the first; it appears whole or not at all.

    Args:
        name: of the folder, relative to the cache.
        num_bytes: what it will take, about.
        make: fills an empty folder; may take minutes.

    Raises:
        ModelError: the cache cannot be written to, or has no room; or of `make`.
    """
    target = root() / name
    if _is_whole(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.name}.lock"))
        _acquire(lock)
        try:
            if not _is_whole(target):
                _make(target, num_bytes, make)
        finally:
            lock.release()
    except OSError as error:
        raise ModelError(
            f"{target} cannot be written: {error.strerror or error}.\nModels are unpacked there "
            f"once. Make room or mend the access, or name another folder in {VARIABLE}."
        ) from None
    return target


def _acquire(lock: FileLock) -> None:
    while True:
        try:
            lock.acquire(timeout=1)
        except Timeout:
            heartbeat.beat()  # another process makes it, and ends or dies
        else:
            return


def _make(target: Path, num_bytes: int, make: Callable[[Path], None]) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < num_bytes + SPARE_BYTES:
        raise ModelError(
            f"{target} wants {(num_bytes + SPARE_BYTES) / 2**20:,.0f} MB, and "
            f"{free / 2**20:,.0f} MB are free there.\n"
            f"Free some space, or name another folder in {VARIABLE}."
        )
    staging.sweep_beside(target)
    with staging.staged_folder(target, replace=True) as temporary:
        with heartbeat.while_busy():
            make(temporary)
        RunDir(temporary).commit(_RECEIPT, _state(temporary))


def _is_whole(folder: Path) -> bool:
    try:
        return (folder / _RECEIPT).read_bytes() == _state(folder)
    except OSError:
        return False


def _state(folder: Path) -> bytes:
    """Name, size and time of every file, the receipt aside."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _RECEIPT)
    lines = [
        f"{path.relative_to(folder)}\t{path.stat().st_size}\t{path.stat().st_mtime_ns}\n"
        for path in found
    ]
    return "".join(lines).encode()
