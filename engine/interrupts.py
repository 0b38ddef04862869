"""Signals that stop a run, and interrupting the main thread from another one.

Ctrl-C, SIGTERM (Kubernetes, Slurm, a spot machine's end) and SIGHUP (a terminal that closes) are
one thing: the first raises `Stopped` wherever the main thread is, and what is held is given back on
the way out. Those that come during that clean-up are left alone; one that takes too long is cut
short.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_SECONDS, CLEAN_UP_SECONDS = 18.0, 10.0
"""For work that is asked to stop by itself, and for what is given back after that: the private Ray
takes about three. Kubernetes gives 30 s in all, then sends SIGKILL."""


class Stopped(KeyboardInterrupt):
    """Somebody wants the run to stop.

    Args:
        number: of the signal.
        note: what becomes of the work that was under way, for people.
    """

    def __init__(self, number: int, note: str = "") -> None:
        super().__init__(number, note)
        self.number, self.note = number, note

    @property
    def code(self) -> int:
        """The exit code that shells know it by."""
        return 128 + self.number

    def __str__(self) -> str:
        after = self.note or "the same command goes on where it was"
        return f"stopped by {signal.Signals(self.number).name}; {after}"


@dataclass
class _Asked:
    """What signal has come, who wants to hear of the first one, and what is to be given back."""

    number: int = 0
    politely: list[Callable[[], object]] = field(default_factory=list)
    held: list[Callable[[], object]] = field(default_factory=list)
    ends: threading.Event | None = None
    """Of a process that ends after its clean-up: set when that is done."""


_asked = _Asked()


@contextmanager
def stopping(for_good: bool = False) -> Iterator[None]:
    """Let the signals raise `Stopped` for the length of a ``with`` block, in the main thread.

    One that is ignored when the block begins (``nohup``, the background of a script) stays so.

    Args:
        for_good: the process ends after the block: once stopped, nothing more shall disturb it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    ours = [n for n, handler in before.items() if handler not in (signal.SIG_IGN, None, _stop)]
    for number in ours:
        signal.signal(number, _stop)
    if for_good:
        _asked.ends = threading.Event()
    try:
        yield
    finally:
        stopped = _asked.number
        for number in ours:
            signal.signal(number, signal.SIG_IGN if for_good and stopped else before[number])
        if for_good and _asked.ends is not None:
            _asked.ends.set()
            _asked.ends = None
        if ours:
            _asked.number = 0


def _stop(number: int, frame: FrameType | None) -> None:
    if _is_cleaning_up():
        return
    first = not _asked.number
    _asked.number = number
    if first and _asked.politely:
        _asked.politely[-1]()
        return
    if _asked.ends is not None:
        threading.Thread(target=_leave_in_time, args=(number, _asked.ends), daemon=True).start()
    raise Stopped(number)


def _is_cleaning_up() -> bool:
    """Whether the main thread is on its way out already: in a ``finally``, an ``__exit__``."""
    error = sys.exc_info()[1]
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def take_back() -> None:
    """Handle the signals again that a library's C code has taken for itself."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            handler = signal.getsignal(number)
            if handler is not None:
                signal.signal(number, handler)


@contextmanager
def giving_back(release: Callable[[], object]) -> Iterator[None]:
    """Have something given back even where the clean-up hangs that would do it after the block."""
    _asked.held.append(release)
    try:
        yield
    finally:
        _asked.held.remove(release)


def _leave_in_time(number: int, ended: threading.Event) -> None:
    """End this process and its children where they stand, if its clean-up takes too long.

    Such as where the signal went to all of them, and what is to be ended in order has gone.
    """
    if ended.wait(CLEAN_UP_SECONDS):
        return
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
    for release in reversed(_asked.held):
        with suppress(OSError, ValueError):
            release()
    with suppress(OSError, ValueError):  # of a terminal that has closed
        sys.stderr.write(f"\n{Stopped(number)}\n")
        sys.stderr.flush()
    os._exit(128 + number)


def refuse_to_go_on() -> None:
    """Stop here where a signal came whose exception somebody's code has swallowed.

    Raises:
        Stopped: one did.
    """
    if _asked.number:
        raise Stopped(_asked.number)


@contextmanager
def asked_politely(ask: Callable[[], object]) -> Iterator[Callable[[], int]]:
    """Let the first signal only ask for an end; the second, or the end of patience, raises.

    Args:
        ask: called once, in the main thread, at any point of its work.

    Yields:
        The number of the signal that came, 0 while none has.
    """
    ended = threading.Event()

    def first() -> None:
        threading.Thread(target=remind, args=(_asked.number,), daemon=True).start()
        ask()

    def remind(number: int) -> None:
        main = threading.main_thread().ident
        if not ended.wait(GRACE_SECONDS) and main is not None:
            signal.pthread_kill(main, number)

    _asked.politely.append(first)
    try:
        yield lambda: _asked.number
    finally:
        ended.set()
        _asked.politely.remove(first)


def interrupt_main() -> None:
    """Do to the main thread what Ctrl-C does: it wakes from any call that can be interrupted."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signal.SIGINT)


@contextmanager
def taking_interrupts(ours: Callable[[], object]) -> Iterator[None]:
    """Let SIGINT come through for the length of a ``with`` block, even where it is ignored.

    Args:
        ours: whether it is the caller's own; else it goes where it went before.
    """
    before = signal.getsignal(signal.SIGINT)

    def interrupted(number: int, frame: FrameType | None) -> None:
        if ours():
            raise KeyboardInterrupt
        if callable(before):
            before(number, frame)

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
