"""What ``poolscore plan`` tells while it measures: on standard error, beside the table."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from engine.progress import PLAIN_SECONDS, Progress, duration

WHAT = {
    "tokens": "reading and tokenising the sample",
    "embed": "embedding",
    "cluster": "k-means",
    "perplexity": "scoring",
    "finetune": "training",
}
"""What each measurement is of, by stage."""


class Told:
    """Lines about a plan in the making: one for each measurement, and signs of life between them.

    Args:
        out: where they go; standard error by default.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stderr
        self._num = self._done = 0
        self._began = self._stage_began = self._shown = time.monotonic()

    @contextmanager
    def counting(self, num_bytes: int) -> Iterator[Callable[[int], None]]:
        """While the lines are counted; gives what is called with each number of bytes read."""
        self._say("counting the pool's lines")
        progress = Progress("counting", num_bytes, "bytes", self.out)
        try:
            yield progress.add
        finally:
            progress.finish()

    def begin(self, num: int) -> None:
        """So many measurements follow."""
        self._num, self._done, self._began = num, 0, time.monotonic()

    def stage(self, stage: str) -> None:
        """A measurement begins."""
        self._stage_began = self._shown = now = time.monotonic()
        text = f"measuring {self._done + 1} of {self._num}: {WHAT[stage]}"
        if self._done:
            left = (now - self._began) / self._done * (self._num - self._done)
            text += f" (about {duration(left)} left)"
        self._done += 1
        self._say(text)

    def still(self, stage: str) -> None:
        """It goes on; said every now and then."""
        now = time.monotonic()
        if now - self._shown >= PLAIN_SECONDS:
            self._shown = now
            self._say(f"  {WHAT[stage]}: {duration(now - self._stage_began)} so far")

    def _say(self, text: str) -> None:
        self.out.write(f"  {text}\n")
        self.out.flush()
