"""Work on shards beside one another in this process; Arrow and NumPy let go of the interpreter."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from engine import heartbeat

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_THREADS = 8
"""Past that, what is left of Python between Arrow's calls holds the others up."""


def in_order(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``work(item)`` of every item, in the order of the items, a few of them at a time.

    No more than two results per thread are held, however slowly they are taken. An error of `work`
    comes out where its result would have; nothing new is begun after that.
    """
    num_threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
    begun: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_threads) as threads:
        try:
            for item in items:
                begun.append(threads.submit(work, item))
                heartbeat.beat()
                if len(begun) == 2 * num_threads:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
