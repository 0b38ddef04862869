"""Faults inside the processes of a run. Python imports this where its folder is on PYTHONPATH.

``POOLSCORE_FAULT`` says in JSON what goes wrong: the driver and all its workers read it. Files that
are about to be committed pass here by name, as Python's audit events, just before the system is
asked; what pyarrow opens in C++ does not.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

PATHS = {"open": 0, "os.rename": 1, "os.mkdir": 0, "os.remove": 0, "os.listdir": 0, "os.utime": 0}
"""Events, and which of their arguments is the path that is touched."""


class Fault:
    """One kind of fault, in some folders of a run."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.kind: str = told["kind"]
        self.run_dir: str = told["run_dir"]
        self.folders: dict[str, float] = told["folders"]
        """Patterns of folders in the run, and how many seconds the storage is away there."""
        self.event: str = told["event"]
        self.name: str = told["name"]
        """Pattern of the file's name at which it happens."""
        self.marks = Path(told["marks"])
        self.inside = False

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        place = PATHS.get(event)
        if place is None or self.inside or not isinstance(arguments[place], (str, os.PathLike)):
            return
        path = os.fspath(arguments[place])
        if not isinstance(path, str) or not path.startswith(self.run_dir):
            return
        self.inside = True  # its own marks are files too
        try:
            self._happen(event, path)
        finally:
            self.inside = False

    def _happen(self, event: str, path: str) -> None:
        folder, name = os.path.split(path.replace("/.saved/", "/"))
        below = os.path.relpath(folder, self.run_dir)
        here = any(fnmatch(below, pattern) for pattern in self.folders)
        if here and event == self.event and fnmatch(name, self.name):
            if self.kind == "full":
                self._count(below)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            if self.kind == "hang":
                time.sleep(3600)
            if self._is_first(below) and self.kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.kind == "kill the driver":
                lock = Path(self.run_dir, "run.lock").read_text()
                os.kill(json.loads(lock)["pid"], signal.SIGKILL)
        if self.kind == "away" and self._is_away():
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)

    def _count(self, below: str) -> None:
        """Add a byte to the folder's mark."""
        with (self.marks / below.replace("/", "+")).open("a") as mark:
            mark.write(".")

    def _is_first(self, below: str) -> bool:
        """Whether no process has been here before."""
        try:
            (self.marks / below.replace("/", "+")).open("x").close()
        except FileExistsError:
            return False
        return True

    def _is_away(self) -> bool:
        since = {mark.name.replace("+", "/"): mark.stat().st_mtime for mark in self.marks.iterdir()}
        return any(time.time() - at < self.folders[below] for below, at in since.items())


if "POOLSCORE_FAULT" in os.environ:
    sys.addaudithook(Fault(json.loads(os.environ["POOLSCORE_FAULT"])))
