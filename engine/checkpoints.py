"""Checkpoints inside an epoch: where they are kept, each whole or not there at all."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from engine import staging

FOLDER = ".checkpoints"
"""In the folder of an epoch, below it one folder for each fingerprint."""
STEPS_SO_FAR = "steps.parquet"
"""In a checkpoint: what the steps before it did (`schema.STEPS`)."""


ORDER_FILE, GO_ON, STOP = ".order", "go on", "stop"
"""In the folder of an epoch: what the driver wants of the workers. It is there from the beginning,
since a network file system may be slow to show a new file, but not what is in an old one."""
LOOK_SECONDS = 1.0
"""Least time between two looks at it."""


class Orders:
    """What the driver wants, looked up by the first worker after a step."""

    def __init__(self, path: Path) -> None:
        self.path, self.looked = path, 0.0

    def say_stop(self) -> bool:
        """Whether the training is to stop here."""
        now = time.monotonic()
        if now - self.looked < LOOK_SECONDS:
            return False
        self.looked = now
        try:
            return self.path.read_text() == STOP
        except OSError:  # a file system that stumbles must not stop the work
            return False


@dataclass(frozen=True)
class Checkpoints:
    """Where an epoch's checkpoints are kept, and how often one is written."""

    folder: Path
    seconds: float

    def last(self) -> Path | None:
        """The latest whole one."""
        return max(self.folder.glob("step-*"), default=None)

    def last_step(self) -> int:
        """Optimizer steps before the latest whole one; 0 where there is none."""
        last = self.last()
        return 0 if last is None else int(last.name.removeprefix("step-"))

    def sweep(self) -> None:
        """Remove what killed writers left."""
        for path in self.folder.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)

    def publish(self, temporary: Path) -> None:
        """Give a finished one its name, then remove those before it."""
        final = temporary.with_name(temporary.name.removeprefix("."))
        staging.publish_folder(temporary, final, replace=True)
        for path in self.folder.iterdir():
            if path != final:
                shutil.rmtree(path, ignore_errors=True)
