"""Two runs on one run directory at once: one goes on, the other is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(120)]
HOLD = """
import sys, time
from pathlib import Path
from engine.errors import RunDirError
from engine.lock import exclusive
try:
    with exclusive(Path(sys.argv[1])):
        time.sleep(3)
except RunDirError as error:
    print(error)
    sys.exit(7)
"""


@pytest.mark.parametrize("seed", range(20))
def test_two_writers_at_once(tmp_path: Path, seed: int) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=60)[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 7]
    (refusal,) = filter(None, told)
    assert "in use by another run: process" in refusal
