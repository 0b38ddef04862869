"""How a training gets on: a small file that its first worker writes and the driver shows."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path

from engine.parallel import peak_memory_bytes
from engine.progress import Progress

FILE = ".live"
"""In the folder of an epoch."""
POLL_SECONDS = 0.5


def tell(live: Path, done: int, loss: float, epoch_seconds: float = 0.0) -> None:
    """Say how many rows of the epoch are done, and the last step's loss."""
    news = {
        "rows": done,
        "loss": loss,
        "peak_memory_bytes": peak_memory_bytes(),
        "epoch_seconds": epoch_seconds,
    }
    with contextlib.suppress(OSError):  # a file system that stumbles must not stop the work
        live.write_text(json.dumps(news))


class Watcher:
    """Shows, on the driver, the progress that rank 0 leaves in a small file."""

    def __init__(self, live: Path, progress: Progress) -> None:
        self.live, self.progress = live, progress
        self.peak_memory_bytes, self.epoch_seconds = 0, 0.0
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.stopped.wait(POLL_SECONDS):
            self._look()

    def _look(self) -> None:
        try:
            news = json.loads(self.live.read_text())
        except (OSError, ValueError):  # not there yet, or half written
            return
        self.peak_memory_bytes = news["peak_memory_bytes"]
        self.epoch_seconds = news["epoch_seconds"]
        if news["rows"] != self.progress.done:
            self.progress.at(news["rows"])

    def stop(self) -> None:
        """End the watch after a last look."""
        self.stopped.set()
        self.thread.join()
        self._look()
        self.progress.finish()
