"""Progress: one line that moves on a terminal, plain lines in a job's log."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from engine import heartbeat

PLAIN_SECONDS = 15.0
"""Least time between two lines where the output is no terminal."""


class Progress:
    """Counts done work of one stage and shows rate and time left."""

    def __init__(self, label: str, total: int, unit: str, out: TextIO | None = None) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.out = out or sys.stdout
        self.done = self.before = 0
        self.start = self.shown = time.monotonic()

    def begin(self, done: int) -> None:
        """Count work of an earlier run as done; it says nothing about this run's rate."""
        self.before = done
        self.at(done)

    def add(self, amount: int) -> None:
        """Count `amount` more units as done."""
        self.at(self.done + amount)

    def at(self, done: int) -> None:
        """Set the count of units done."""
        self.done = done
        heartbeat.beat()
        now = time.monotonic()
        if self.out.isatty():
            self.out.write(f"\r\033[K{self.line(now)}")
            self.out.flush()
        elif now - self.shown >= PLAIN_SECONDS:
            self.shown = now
            self.out.write(self.line(now) + "\n")
            self.out.flush()

    def line(self, now: float) -> str:
        """The text shown: count, share, rate and time left."""
        share = self.done / max(self.total, 1)
        counted = f"  {self.label:<20} {self.done:>12,} / {self.total:,} {self.unit}  {share:4.0%}"
        new = self.done - self.before
        if not new:
            return counted  # no rate yet
        rate = new / max(now - self.start, 1e-9)
        left = (self.total - self.done) / rate
        return f"{counted}  {rate:,.0f}/s  {duration(left)} left"

    def finish(self) -> None:
        """Clear the moving line; the stage prints its own closing line."""
        if self.out.isatty():
            self.out.write("\r\033[K")
            self.out.flush()


def duration(seconds: float) -> str:
    """Seconds as people say them: ``8 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
