"""Checkpoints inside an epoch: where they are kept, each whole or not there at all."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

FOLDER = ".checkpoints"
"""In the folder of an epoch, below it one folder for each fingerprint."""
STEPS_SO_FAR = "steps.parquet"
"""In a checkpoint: what the steps before it did (`schema.STEPS`)."""


@dataclass(frozen=True)
class Checkpoints:
    """Where an epoch's checkpoints are kept, and how often one is written."""

    folder: Path
    seconds: float

    def last(self) -> Path | None:
        """The latest whole one."""
        return max(self.folder.glob("step-*"), default=None)

    def sweep(self) -> None:
        """Remove what killed writers left."""
        for path in self.folder.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)

    def publish(self, temporary: Path) -> None:
        """Give a finished one its name, then remove those before it."""
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        final = temporary.with_name(temporary.name.removeprefix("."))
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        for path in self.folder.iterdir():
            if path != final:
                shutil.rmtree(path, ignore_errors=True)
