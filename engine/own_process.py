"""Work on files that strangers made, in a process of its own.

Its memory goes back when it ends, and a file that crashes a library ends it, not the run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from engine import heartbeat
from engine.errors import ModelError, PoolscoreError, in_short

REFUSED = 3
"""Exit code of a process that has said why on its last lines."""
_SAY = "poolscore says: "


def run(module: str, *words: str | Path, what: str) -> str:
    """Run ``python -m module words``, and return what it printed last.

    Args:
        module: whose `__main__` calls `answer`.
        words: its arguments.
        what: is done, for the error when it dies: ``converting x.gguf``.

    Raises:
        ModelError: what it refused, in its own words; or how it died.
    """
    above = str(Path(__file__).resolve().parent.parent)
    paths = [above, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HUB_OFFLINE": "1",  # whatever a file asks for, nothing is fetched
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, "-P", "-m", module, *map(str, words)]
    with heartbeat.while_busy():
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", check=False
        )
    said = done.stdout.rpartition(_SAY)[2].strip() if _SAY in done.stdout else ""
    if done.returncode == 0:
        return said
    if done.returncode == REFUSED:
        raise ModelError(said)
    raise ModelError(f"{what} failed: {_end(done.returncode, done.stderr)}")


def _end(code: int, errors: str) -> str:
    if code == -signal.SIGKILL:
        return "its process was killed, most often because memory ran out."
    if code < 0:
        return f"its process died of signal {-code} ({signal.Signals(-code).name})."
    # What a library raised: the last traceback's unindented lines.
    lines = errors.rpartition("Traceback (most recent call last):")[2].strip().splitlines()
    told = "\n".join(line for line in lines if not line.startswith((" ", "\t")))
    return in_short(told) or f"its process ended with code {code}, without a word."


def answer(work: Callable[..., str], words: list[str]) -> int:
    """What the process itself does: `work`, its answer or its refusal, and the exit code.

    Args:
        work: takes the words; its result is handed to `run`'s caller.
        words: of the command line.
    """
    try:
        said, code = work(*words), 0
    except PoolscoreError as error:
        said, code = str(error), REFUSED
    sys.stdout.write(f"\n{_SAY}{said}\n")
    return code
