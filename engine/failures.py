"""What went wrong on a worker, as an error for people.

Ray wraps a worker's exception in its own, with the traceback of every process it came through as
text. Here the original is dug out; the full story goes to a file in the run directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import staging
from engine.errors import PoolscoreError, RunDirError, WorkerError
from engine.step import Step
from engine.storage import CLOSED, is_storage_error

STORY_FILE = "error.log"
LAST_LINES = 6
_TOLD = {os.strerror(number): number for number in CLOSED if number != errno.EPERM}
"""What libraries in Rust and C++ say of a disk in errors of their own."""
PROBE_BYTES = 2**16


@contextmanager
def for_people(step: Step) -> Iterator[None]:
    """Turn what Ray raises for a failed worker into a `PoolscoreError`.

    Raises:
        PoolscoreError: the worker's own, where it raised one.
        WorkerError: else, with the last lines of what happened and where the rest is.
    """
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError

    try:
        yield
    except (RayError, TrainingFailedError) as error:
        story = step.run.path / STORY_FILE
        closed = storage_now(step.label, step.run.path)
        if closed is not None and understood(step.label, error) is None:
            raise closed from None
        failed = for_a_person(
            step.label,
            error,
            f"The whole story is in {story}. Finished shards are kept:\n"
            "the same command goes on where it stopped. A worker that died without a word was most "
            "often out of memory:\nlower resources.score_batch_tokens, "
            "resources.micro_batch_tokens or resources.num_workers.",
        )
        if failed is not original(error):
            with contextlib.suppress(OSError, RunDirError):  # the error itself matters more
                step.run.commit(STORY_FILE, "".join(traceback.format_exception(error)).encode())
        raise failed from None


def for_a_person(what: str, error: BaseException, advice: str) -> PoolscoreError:
    """What is `understood` of an error; else its last lines and the advice."""
    understood_as = understood(what, error)
    if understood_as is not None:
        return understood_as
    first = original(error)
    lines = [line for line in str(first).strip().splitlines() if line.strip()]
    return WorkerError(
        f"{what} failed on a worker: {type(first).__name__}\n"
        + "".join(f"  {line}\n" for line in lines[-LAST_LINES:])
        + advice
    )


def understood(what: str, error: BaseException) -> PoolscoreError | None:
    """One of ours that Ray has wrapped, as it was, or what the storage says; None for all else."""
    first = original(error)
    if isinstance(first, PoolscoreError):
        return first
    if is_storage_error(first):
        return storage_error(what, first)
    for text, number in _TOLD.items():
        if text in str(first):
            return storage_error(what, OSError(number, f"{text} ({type(first).__name__})"))
    return None


def storage_now(what: str, folder: Path) -> RunDirError | None:
    """What the storage says of a file that is written there; None where all is well.

    Whoever may not write dies in many ways, and often without a word.
    """
    try:
        staging.try_writing(folder, PROBE_BYTES)
    except OSError as error:
        if is_storage_error(error):
            return storage_error(what, error)
    return None


def storage_error(what: str, error: OSError) -> RunDirError:
    """A disk that is full or may not be written to, or storage that did not come back."""
    reason = (
        f"{error.strerror}: {error.filename}" if error.filename else error.strerror or str(error)
    )
    advice = "Make room or mend the access" if error.errno in CLOSED else "See to that storage"
    return RunDirError(
        f"{what}: {reason}\n{advice}; finished shards are kept, and the same command goes on."
    )


def original(error: BaseException) -> BaseException:
    """The exception that the worker's own code raised; one of ours wherever there is one."""
    bottom = error
    for found in _below(error):
        # Ray makes a class of both kinds; only the bare one has our text alone.
        if isinstance(found, PoolscoreError) and getattr(found, "cause", None) is None:
            return found
        broken = "onnection closed" in str(found) or "onnection reset" in str(found)
        if str(found).strip() and not broken:  # some of Ray's own say nothing
            bottom = found
    return bottom


def _below(error: BaseException) -> Iterator[BaseException]:
    """Everything an exception wraps, depth first. One failed rank breaks the others' connections,
    so all of them are looked at.
    """
    yield error
    wrapped = [
        *getattr(error, "worker_failures", {}).values(),
        getattr(error, "controller_failure", None),
        getattr(error, "cause", None),
        error.__cause__,
    ]
    for inner in wrapped:
        if isinstance(inner, BaseException) and inner is not error:
            yield from _below(inner)
