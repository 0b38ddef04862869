"""One function over many arguments: in this process, or as Ray tasks on every core there is.

For work that reads and writes files: what comes back is a small receipt. `mapping` is for work
that has to load a model first.
"""

from __future__ import annotations

import resource
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from engine import heartbeat
from engine.nodes import Nodes
from engine.storage import patiently

IN_FLIGHT_PER_CPU = 16
"""Tasks that are started or done ahead of the oldest unfinished one: results come in order, and one
slow file should not keep the other cores waiting."""
MAX_RETRIES = 2
"""Times that a task is tried again after its process or node died. Ray's own retries are off:
under its defaults a task that runs out of memory is tried without end."""

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def run_all(
    function: Callable[[Argument], Result],
    arguments: Iterable[Argument],
    nodes: Nodes | None,
    working: Path,
) -> Generator[Result, None, None]:
    """The function's results, in the order of the arguments; once closed it starts nothing more.

    Args:
        function: may run more than once for an argument, also where the storage was away; what it
            holds is sent to each node once.
        arguments: one task each, on one core.
        nodes: the cluster; without one everything runs in this process.
        working: folder for the tasks' signs of life (`heartbeat`).

    Raises:
        RayError: a task failed, and `failures.for_people` knows why. In this process, the
            function's own exceptions.
    """
    if nodes is None:
        yield from (patiently(partial(function, argument)) for argument in arguments)
        return
    shared = ray.put(function)
    started = (
        Task(partial(_call.remote, shared, argument, working / f"task-{index}{heartbeat.SIGN}"))
        for index, argument in enumerate(arguments)
    )
    tasks = deque(islice(started, IN_FLIGHT_PER_CPU * nodes.num_cpus))
    try:
        while tasks:
            result = tasks[0].result()
            tasks.popleft()
            tasks.extend(islice(started, 1))
            yield result
    finally:
        # What is still running is left to end by itself: it is a second's work, and Ray may abort
        # the driver over the reply of a task that was cancelled (2.60, task_manager.cc).
        shutil.rmtree(working, ignore_errors=True)


class Task:
    """One call somewhere in the cluster, which may run more than once."""

    def __init__(self, start: Callable[[], ray.ObjectRef[Any]]) -> None:
        self._start = start
        self.reference = start()

    def result(self) -> Any:
        """What the call returns.

        Raises:
            RayError: it failed, or lost its process or node more than `MAX_RETRIES` times.
        """
        for _ in range(MAX_RETRIES):
            try:
                return ray.get(self.reference)
            except RayTaskError:  # raised by the function, which would raise it again
                raise
            except RayError:
                self.reference = self._start()
        return ray.get(self.reference)


@ray.remote(num_cpus=1, max_retries=0)
def _call(function: Callable[[Argument], Result], argument: Argument, working: Path) -> Result:
    with heartbeat.at_work(working):
        return patiently(partial(function, argument))


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far (Linux counts it in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
