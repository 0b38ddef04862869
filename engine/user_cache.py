"""The user's cache: models that were unpacked or converted once and serve every run.

`POOLSCORE_CACHE`, else `poolscore` in `XDG_CACHE_HOME`, else `~/.cache/poolscore`. Each machine has
its own, so a cluster's nodes do the same work once each, to the same bytes; a cache on shared
storage, named by the variable on every node, saves that.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from engine import hashes, heartbeat, staging
from engine.errors import ModelError, RunDirError
from engine.rundir import RunDir

VARIABLE = "POOLSCORE_CACHE"
_RECEIPT = ".whole.json"
"""Written last: SHA-256 of every file, so that what was cut or changed is made anew."""
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
    with heartbeat.while_busy():
        if _is_whole(target, RunDir(root())):
            return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.name}.lock"))
        _acquire(lock)
        try:
            if not _is_whole(target, RunDir(root())):
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
            made = {name: hashes.sha256(path) for name, path in _files(temporary).items()}
        RunDir(temporary).commit(_RECEIPT, json.dumps(made, indent=0).encode())


def refuse_altered(name: str, run: RunDir) -> None:
    """Refuse a folder that is there and not as it was made; the next that wants it makes it anew.

    Args:
        name: of the folder, relative to the cache.
        run: whose remembered digests are taken for true.

    Raises:
        ModelError: a file of it was changed, or is gone or new.
    """
    target = root() / name
    if target.exists() and not _is_whole(target, run):
        raise ModelError(
            f"{target} was changed since a model was unpacked there: its files have other digests."
            "\nThe next run that uses it unpacks it anew; whoever wrote there should not."
        )


def _is_whole(folder: Path, run: RunDir) -> bool:
    """Whether every file has the digest it was made with; one that is remembered is not read."""
    try:
        return json.loads((folder / _RECEIPT).read_bytes()) == run.hash_files(_files(folder))
    except (OSError, ValueError, RecursionError, RunDirError):
        return False


def _files(folder: Path) -> dict[str, Path]:
    """Every file by its name relative to the folder, the receipt aside."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != _RECEIPT)
    return {path.relative_to(folder).as_posix(): path for path in found}
