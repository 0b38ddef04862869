"""One way to put a file or a folder where it belongs: a temporary one beside it, fsync, rename.

The temporary file has a name that nobody can foresee and is made anew, so nothing is ever written
through a link that lies in wait; a link in the place of the target is replaced, not followed.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

KEPT_LETTERS = 40
"""Of the target's name in the temporary one, which a file system may want within 255 bytes."""
_OWN = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_RANDOM_LETTERS = len(".tmp") + 32
_FOLDERS = re.compile(r"[1-9]-[a-z]+|epoch-\d+|proxies")
"""Names of the folders that a run makes, the proxies' own aside."""


@contextmanager
def staged(target: Path) -> Generator[Path]:
    """An empty temporary file beside `target`: renamed onto it on success, removed on failure.

    Raises:
        OSError: the folder is missing or may not be written to.
    """
    temporary = _made_anew(target)
    try:
        yield temporary
        publish(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def try_writing(folder: Path, num_bytes: int) -> None:
    """Write a file into a folder, and remove it.

    Raises:
        OSError: the folder is missing, full or may not be written to.
    """
    temporary = _made_anew(folder / "probe")
    try:
        temporary.write_bytes(bytes(num_bytes))
    finally:
        temporary.unlink(missing_ok=True)


def _made_anew(target: Path) -> Path:
    """An empty file beside `target` that was not there before, nor any link under its name."""
    temporary = _beside(target)
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    return temporary


def publish(source: Path, target: Path) -> None:
    """Give a finished file its name, once what it holds is on the disk."""
    _sync(source)
    source.replace(target)


@contextmanager
def staged_folder(target: Path, replace: bool) -> Generator[Path]:
    """An empty temporary folder beside `target`: renamed to it on success, removed on failure.

    Args:
        target: where it belongs; the folder above is there.
        replace: whether a folder that is there already is ours to remove.

    Raises:
        FileExistsError: something is there that is not to be removed, or has come meanwhile.
        OSError: the folder above may not be written to.
    """
    temporary = _beside(target)
    temporary.mkdir()
    try:
        yield temporary
        publish_folder(temporary, target, replace)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def publish_folder(source: Path, target: Path, replace: bool) -> None:
    """Give a finished folder its name, once what it holds is on the disk.

    Raises:
        FileExistsError: something is there that is not to be removed.
    """
    for path in source.rglob("*"):
        if path.is_file():
            _sync(path)
    if os.path.lexists(target):
        if not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        shutil.rmtree(target)
    try:
        source.rename(target)
    except OSError as error:  # it came this very moment; a folder that holds something stays
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR) and target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        raise


def sweep_beside(target: Path) -> None:
    """Remove what killed processes left of `target`; only who holds its lock may."""
    beginning = _beside(target).name[:-_RANDOM_LETTERS]
    for path in target.parent.iterdir():
        if path.name.startswith(beginning) and _OWN.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name[:KEPT_LETTERS]}.{uuid.uuid4().hex}.tmp")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sweep(root: Path) -> None:
    """Remove the temporary files that killed processes left in a run directory.

    Only files that bear a name of `staged`, in folders that a run makes: whatever else lies there
    is somebody's, and no link is followed.
    """
    folders = [root]
    while folders:
        folder = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if _FOLDERS.fullmatch(entry.name) or folder == root / "proxies":
                        folders.append(Path(entry.path))
                elif _OWN.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    Path(entry.path).unlink(missing_ok=True)
