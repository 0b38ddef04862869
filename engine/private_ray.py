"""The private Ray of one run: where its files lie, who can reach it, and whose signals are whose.

Ray has no settings for the last two, so three of its own names are replaced while it starts. The
tests look at what listens and at what signals do, and would find a Ray in which that has changed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ray._private import ray_constants, services, utils

from engine import interrupts
from engine.errors import ConfigError

SOCKET_BYTES = 107
"""The longest name of a socket in a file system, by Linux."""
SOCKET_BELOW = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
"""The longest name that Ray gives to one below its folder."""
SHORT_FOLDERS = ("/tmp", "/dev/shm", "/var/tmp")
"""Where a folder of its own is made if the usual one is of no use."""


@contextmanager
def folder(wanted: bool) -> Iterator[str | None]:
    """A folder for Ray's files; None where the usual one does, or none is wanted.

    Raises:
        ConfigError: the usual one is no folder that can be written to, or has too long a name, and
            neither does any other.
    """
    problem = unusable(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp")
    if not wanted or problem is None:
        yield None
        return
    made = next(filter(None, map(_made_in, SHORT_FOLDERS)), None)
    if made is None:
        raise ConfigError(
            f"Ray finds no place for its files: {problem}, and none of "
            f"{', '.join(SHORT_FOLDERS)} can be used.\n"
            "Set RAY_TMPDIR to a folder with a short name that you can write to."
        )
    try:
        yield str(made)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _made_in(where: str) -> Path | None:
    if unusable(where) is not None:
        return None
    return Path(tempfile.mkdtemp(prefix="ps-", dir=where))  # for its owner alone


def unusable(where: str) -> str | None:
    """Why Ray cannot have its sockets there; None where it can."""
    num_bytes = len(os.fsencode(where + SOCKET_BELOW))
    if num_bytes > SOCKET_BYTES:
        return f"{where} is {num_bytes - SOCKET_BYTES} bytes too long for its sockets"
    if not Path(where).is_dir():
        return f"{where} is no folder"
    try:
        with tempfile.TemporaryFile(dir=where):
            return None
    except OSError as error:
        return f"{where} cannot be written to: {error.strerror}"


@contextmanager
def starting(ours: bool) -> Iterator[None]:
    """What Ray does otherwise while it starts, or joins.

    Args:
        ours: it starts a private one.
    """
    try:
        with ExitStack() as replaced:
            # Its Python would take SIGTERM, wait for 30 s and end with 1; its C++ prints a stack.
            replaced.enter_context(_replaced(utils, "set_sigterm_handler", lambda handler: None))
            if ours:
                # It binds to 127.0.0.1, metrics and health ports included, on systems where it
                # supports no clusters, to spare people a firewall's questions.
                replaced.enter_context(_replaced(ray_constants, "ENABLE_RAY_CLUSTER", False))
                # What a terminal, `timeout` or a supervisor sends to the whole group of this
                # process would end Ray's first, and it would wait for them on its way out.
                apart = partial(services.ConsolePopen, start_new_session=True)
                replaced.enter_context(_replaced(services, "ConsolePopen", apart))
            yield
    finally:
        interrupts.take_back()  # from the C++ part, of which Python knows nothing


@contextmanager
def _replaced(owner: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
