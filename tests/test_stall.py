"""The guard where nothing can be interrupted any more, so that it has to end the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BEGIN = """
import sys, threading, time
from pathlib import Path
from engine import stall
from engine.config import Config
from engine.rundir import RunDir
from engine.step import Step

stall.FORCE_SECONDS = 1
config = Config().override(resources={"stall_seconds": 2})
step = Step("embed", "2-embed", 0, config, RunDir(Path(sys.argv[1])), {}, {}, "")
"""

# A call into a file system that is gone, for the guard as for everybody else.
STORAGE_HANGS = """
stall._Guard._look = lambda guard, now: time.sleep(3600)
with stall.guarded(step):
    time.sleep(3600)
"""

# As with Ctrl-C, a call into a library may go on and on.
NOTHING_GETS_THROUGH = """
with stall.guarded(step):
    while True:
        try:
            time.sleep(3600)
        except KeyboardInterrupt:
            pass
"""


@pytest.mark.parametrize(
    ("hangs", "told"),
    [
        (STORAGE_HANGS, "2-embed/.working cannot even be listed: its storage hangs"),
        (NOTHING_GETS_THROUGH, "the same command goes on from there"),
    ],
    ids=["storage", "library"],
)
def test_what_cannot_be_interrupted_is_ended(tmp_path: Path, hangs: str, told: str) -> None:
    command = [sys.executable, "-c", BEGIN + hangs, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: embed hangs: no sign of life for 2 s")
    assert told in done.stderr
