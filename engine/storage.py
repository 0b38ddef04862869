"""Storage that fails: what is waited for, and what only a person can mend."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Final, TypeGuard, TypeVar

from engine import heartbeat

PATIENCE_SECONDS, FIRST_PAUSE, LONGEST_PAUSE = 120.0, 0.25, 8.0
AWAY: Final = (
    *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT),
    *(errno.ENOTCONN, errno.EHOSTDOWN, errno.ENODEV),
)
"""What a network file system says while its server is away."""
CLOSED: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""A disk that is full, or may not be written to."""

_WAITED: Final = "poolscore_waited"
T = TypeVar("T")


def is_disk_error(error: BaseException) -> TypeGuard[OSError]:
    """Whether the system says it of a disk; errors without a number come of damaged bytes."""
    return isinstance(error, OSError) and error.errno is not None


def is_storage_error(error: BaseException) -> TypeGuard[OSError]:
    """Whether it says of the storage what time or a person can mend."""
    return isinstance(error, OSError) and error.errno in (*CLOSED, *AWAY)


def is_away(error: BaseException) -> bool:
    """Whether time alone may mend it."""
    return isinstance(error, OSError) and error.errno in AWAY


def patiently(action: Callable[[], T]) -> T:
    """Do something with files, again and again while the storage is away.

    Args:
        action: may begin again after it has failed half-way.

    Raises:
        OSError: of another kind, or still after `PATIENCE_SECONDS`.
    """
    end, pause = 0.0, FIRST_PAUSE
    while True:
        try:
            done = action()
        except OSError as error:
            end = end or time.monotonic() + PATIENCE_SECONDS
            if not is_away(error) or getattr(error, _WAITED, False):
                raise
            if time.monotonic() > end:
                setattr(error, _WAITED, True)  # whoever called from inside another `patiently`
                raise
        else:
            heartbeat.beat()  # whoever reads and writes is alive
            return done
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
