"""No silent hang: a stage that shows no sign of life is stopped, with a diagnosis.

A thread of the driver looks at the beats of the workers (`heartbeat`) and at its own. When one
piece of work, or everything, has been still for `resources.stall_seconds`, it writes down what it
can find out and interrupts the main thread, whatever that is waiting for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

import ray
from ray.util import placement_group_table

from engine import heartbeat
from engine.errors import WorkerError
from engine.interrupts import interrupt_main, taking_interrupts
from engine.step import Step

T = TypeVar("T")
LOOK_SECONDS = 0.5
FORCE_SECONDS = 60.0
"""What cannot be interrupted for so long is ended with its process."""
STACK_SECONDS, DIAGNOSIS_SECONDS = 1.0, 5.0
STACK_LINES = 8


@contextmanager
def guarded(step: Step) -> Iterator[None]:
    """Watch over a stage for the length of a ``with`` block.

    Outside of the main thread nothing can be interrupted: there the diagnosis is only printed.

    Raises:
        WorkerError: nothing happened for `resources.stall_seconds`; what, where and why.
    """
    guard = _Guard(step, threading.current_thread() is threading.main_thread())
    try:
        with guard.taking_interrupts():
            guard.start()
            try:
                yield
            finally:
                guard.end()
    except BaseException:
        if guard.diagnosis:
            raise WorkerError(guard.diagnosis) from None
        raise


class _Guard(threading.Thread):
    def __init__(self, step: Step, may_interrupt: bool) -> None:
        super().__init__(daemon=True)
        self.step, self.may_interrupt = step, may_interrupt
        self.limit = step.config.resources.stall_seconds
        self.folder = step.run.path / step.folder / heartbeat.FOLDER
        self.diagnosis = ""
        """Set at the moment of the interruption."""
        self.ended, self.lock = threading.Event(), threading.Lock()
        self.seen: dict[Path, tuple[int, float]] = {}
        """Of each file the time that it bears, and when that was first seen."""
        self.heard = self.looked = time.monotonic()

    def run(self) -> None:
        while not self.ended.wait(min(LOOK_SECONDS, self.limit / 4)):
            try:
                looked, stuck = _in_time(lambda: self._look(time.monotonic()), self.limit)
                self.looked = time.monotonic()
            except Exception:  # noqa: BLE001  once is nothing; for ever is as good as not looking
                looked, stuck = time.monotonic() - self.looked < self.limit, None
            if not looked:
                self._leave(self._diagnose(None))
                return
            if stuck is not None:
                self._interrupt(self._diagnose(stuck))
                return

    def end(self) -> None:
        """Stop watching; an interruption that is under way comes before."""
        with self.lock:
            self.ended.set()

    def taking_interrupts(self) -> AbstractContextManager[None]:
        """Let SIGINT come through when it is this guard's."""
        return taking_interrupts(lambda: self.diagnosis) if self.may_interrupt else nullcontext()

    def _look(self, now: float) -> Path | None:
        """The work that is stuck; `folder` where nobody is at work; None where all is well."""
        seen = self._listed(now)
        if seen != self.seen:
            self.heard = now
        self.seen = seen
        silent = sorted((at, path) for path, (_, at) in seen.items() if now - at > self.limit)
        for _, path in silent:
            # Whoever takes up a dead process's work beats again; until then others may be busy.
            if path.suffix == heartbeat.WORK and not heartbeat.is_gone(heartbeat.owner(path)):
                return path
        if now - max(self.heard, heartbeat.last_beat()) > self.limit:
            owned = [path for _, path in silent if path.suffix in _OWNED]
            return owned[0] if owned else self.folder
        return None

    def _listed(self, now: float) -> dict[Path, tuple[int, float]]:
        """`seen`, brought up to date; as it was where the folder cannot be looked at."""
        seen: dict[Path, tuple[int, float]] = {}
        try:
            paths = list(self.folder.iterdir())
        except FileNotFoundError:
            return seen
        except OSError:
            return self.seen
        for path in paths:
            with contextlib.suppress(OSError):  # done in this very moment
                stamp = path.stat().st_mtime_ns
                before = self.seen.get(path)
                seen[path] = before if before and before[0] == stamp else (stamp, now)
        return seen

    def _diagnose(self, stuck: Path | None) -> str:
        """What can be found out; None for storage that does not even list a folder."""
        lines = [
            f"{self.step.label} hangs: no sign of life for {self.limit} s (resources.stall_seconds)"
        ]
        if stuck is None:
            lines.append(f"  where: {self.folder} cannot even be listed: its storage hangs")
        elif stuck != self.folder:
            lines += _found_out(lambda: _at_work(stuck))
        lines += _found_out(_waiting)
        lines.append(
            "  fix:   what is finished is kept, and the same command goes on from there. Work that "
            "is slow\n         but sound needs --set resources.stall_seconds=… (seconds without "
            "one batch or step)"
        )
        return "\n".join(lines)

    def _interrupt(self, diagnosis: str) -> None:
        with self.lock:
            if self.ended.is_set():
                return
            if not self.may_interrupt:
                sys.stderr.write(f"warning: {diagnosis}\n")
                return
            self.diagnosis = diagnosis
            interrupt_main()
        if not self.ended.wait(FORCE_SECONDS):
            self._leave(diagnosis)

    def _leave(self, diagnosis: str) -> None:
        """End the process where it stands: whatever it would tidy up hangs as well."""
        if self.ended.is_set():
            return
        kind = "error" if self.may_interrupt else "warning"
        sys.stderr.write(f"{kind}: {diagnosis}\n")
        sys.stderr.flush()
        if self.may_interrupt:
            os._exit(1)


_OWNED = (heartbeat.WORK, heartbeat.SIGN)


def _in_time(find_out: Callable[[], T], seconds: float) -> tuple[bool, T | None]:
    """Whether a question was answered in time, and the answer; what is asked may hang itself."""
    answer: Future[T] = Future()

    def ask() -> None:
        try:
            answer.set_result(find_out())
        except Exception as error:  # noqa: BLE001  raised where the answer is asked for
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return True, answer.result(seconds)
    except TimeoutError:
        return (True, answer.result()) if answer.done() else (False, None)


def _found_out(find_out: Callable[[], list[str]]) -> list[str]:
    """What can be found out soon; the cluster or the storage may be what hangs."""
    with contextlib.suppress(Exception):
        return _in_time(find_out, DIAGNOSIS_SECONDS)[1] or []
    return []


def _at_work(path: Path) -> list[str]:
    """Where the stuck work is, and at which line of code, as far as that can be seen from here."""
    owner = heartbeat.owner(path)
    if not owner:
        return [f"  where: {path.stem}"]
    where = f"  where: {path.stem}, process {owner['pid']} on {owner['host']}"
    if not heartbeat.can_be_seen(owner):
        return [where]
    if heartbeat.is_gone(owner):
        return [where, "  what:  that process is gone, and nobody took up its work"]
    os.kill(owner["pid"], signal.SIGUSR1)
    time.sleep(STACK_SECONDS)
    stack = path.with_suffix(heartbeat.STACK).read_text().splitlines()
    told = [f"         {line.strip()}" for line in _innermost(stack)]
    return [where, *(["  what:  its innermost calls are", *told] if told else [])]


def _innermost(stack: list[str]) -> list[str]:
    """The first lines of the thread that computes: the one deepest inside our own code."""
    threads: list[list[str]] = []
    for line in stack:
        if not line.startswith(" "):
            threads.append([])
        elif threads:
            threads[-1].append(line)
    ours = [thread for thread in threads if any("/engine/" in line for line in thread)]
    deepest = max(ours or threads, key=lambda thread: len(thread), default=[])
    return deepest[:STACK_LINES]


def _waiting() -> list[str]:
    """What the cluster has free, and what is asked for."""
    if not ray.is_initialized():
        return []
    free, total = ray.available_resources(), ray.cluster_resources()
    counted = [f"{free.get(n, 0):g} of {total[n]:g} {n}s" for n in ("CPU", "GPU") if total.get(n)]
    lines = [f"  free:  {', '.join(counted) or 'nothing'} in the cluster"]
    for group in placement_group_table().values():
        if group["state"] in ("PENDING", "RESCHEDULING"):
            wanted = list(group["bundles"].values())
            each = ", ".join(f"{num:g} {name}" for name, num in wanted[0].items())
            lines.append(f"         the stage waits for {len(wanted)} × {each}")
    return lines
