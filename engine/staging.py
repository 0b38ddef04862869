"""One way to put a file where it belongs: a temporary file beside it, fsync, rename.

The temporary file has a name that nobody can foresee and is made anew, so nothing is ever written
through a link that lies in wait; a link in the place of the target is replaced, not followed.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

KEPT_LETTERS = 40
"""Of the target's name in the temporary one, which a file system may want within 255 bytes."""
_OWN = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")
_FOLDERS = re.compile(r"[1-9]-[a-z]+|epoch-\d+|proxies")
"""Names of the folders that a run makes, the proxies' own aside."""


@contextmanager
def staged(target: Path) -> Generator[Path]:
    """An empty temporary file beside `target`: renamed onto it on success, removed on failure.

    Raises:
        OSError: the folder is missing or may not be written to.
    """
    temporary = target.with_name(f".{target.name[:KEPT_LETTERS]}.{uuid.uuid4().hex}.tmp")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    try:
        yield temporary
        publish(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def publish(source: Path, target: Path) -> None:
    """Give a finished file its name, once what it holds is on the disk."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(target)


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
