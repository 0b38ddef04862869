"""Progress: one line that moves on a terminal, plain lines in a job's log."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from engine import heartbeat

PLAIN_SECONDS = 15.0
"""Least time between two lines where the output is no terminal."""
TICK_SECONDS = 1.0
RECENT_SECONDS = 60.0
"""Of whose work the rate is."""


class Progress:
    """Counts done work of one stage and shows rate and time left.

    Args:
        label: what the line begins with.
        total: units of work; 0 where that is not known.
        unit: their name.
        out: where it is shown; stdout unless given.
    """

    def __init__(self, label: str, total: int, unit: str, out: TextIO | None = None) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.out = out or sys.stdout
        self.done = self.before = self.partly = 0
        self.note = ""
        self.start = self.shown = time.monotonic()
        self.seen: deque[tuple[float, int]] = deque([(self.start, 0)])
        """When how many units were done, for the recent rate."""
        self.lock = threading.Lock()

    def begin(self, done: int) -> None:
        """Count work of an earlier run as done; it says nothing about this run's rate."""
        self.before = done
        self.seen = deque([(self.start, done)])
        self.at(done)

    def add(self, amount: int) -> None:
        """Count `amount` more units as done."""
        self.at(self.done + amount)

    def at(self, done: int) -> None:
        """Set the count of units done."""
        self.done = done
        heartbeat.beat()
        self._show(time.monotonic())

    @contextmanager
    def ticking(
        self, note: str, look: Callable[[], int] | None = None, at_once: bool = True
    ) -> Iterator[None]:
        """Show the line and keep it moving for the length of a ``with`` block.

        Args:
            note: what goes on until the first unit is done.
            look: units that are done of work that is not; asked once a second, in a thread.
            at_once: in a log too, where else the first line comes when it takes long.
        """
        self.note = note
        if at_once and not self._moves():
            self._put(f"{self.line(time.monotonic())}\n")
        ended = threading.Event()

        def tick() -> None:
            while True:
                if look is not None:
                    # What ends a piece of work takes away what was said of it, a moment before it
                    # counts as done; the line must not go back for that.
                    under_way = max(self.partly, self.done + look())
                    self.partly = min(under_way, self.total)
                self._show(time.monotonic())
                if ended.wait(TICK_SECONDS):
                    return

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.finish()

    def _show(self, now: float) -> None:
        with self.lock:
            counted = max(self.done, self.partly)
            if counted != self.seen[-1][1]:
                self.seen.append((now, counted))
            while len(self.seen) > 2 and self.seen[1][0] < now - RECENT_SECONDS:
                self.seen.popleft()
            if self._moves():
                width = shutil.get_terminal_size().columns - 1
                self._put(f"\r\033[K{self.line(now)[:width]}")
            elif now - self.shown >= PLAIN_SECONDS:
                self.shown = now
                self._put(f"{self.line(now)}\n")

    def _moves(self) -> bool:
        """Whether the line is on a terminal."""
        with suppress(ValueError):  # closed
            return self.out.isatty()
        return False

    def _put(self, text: str) -> None:
        """Who reads it may be gone, as a terminal that closes is: no reason for the work to end,
        or to end otherwise than the signal has it. The next print says so.
        """
        with suppress(OSError, ValueError):
            self.out.write(text)
            self.out.flush()

    def line(self, now: float) -> str:
        """The text shown: count, share, rate and time left."""
        done = max(self.done, self.partly)
        lasted = duration(now - self.start)
        if not self.total:
            return f"  {self.label:<20} {self.note}  {lasted}"
        share = int(100 * done / self.total)  # 100% is said of all of it alone
        counted = f"  {self.label:<20} {done:>12,} / {self.total:,} {self.unit}  {share:3}%"
        if done == self.before:  # no rate yet
            return f"{counted}  {self.note} {lasted}" if self.note else counted
        since, then = self.seen[0]
        rate = max(done - then, 0) / max(now - since, 1e-9)
        if not rate:
            return counted
        return f"{counted}  {rate:,.0f}/s  {duration((self.total - done) / rate)} left"

    def finish(self) -> None:
        """Clear the moving line; the stage prints its own closing line."""
        if self._moves():
            self._put("\r\033[K")


def duration(seconds: float) -> str:
    """Seconds as people say them: ``8 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
