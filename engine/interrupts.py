"""Interrupting the main thread from another one, whatever it is waiting for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


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
