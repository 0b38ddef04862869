"""Signs of life: who was at a piece of work, and whether they still live."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine import heartbeat

DIE_OVER_IT = """
import os, sys
from pathlib import Path
from engine import heartbeat
with heartbeat.signed(Path(sys.argv[1])):
    os._exit(9)
"""


def test_a_living_colleague_has_not_died_over_its_work(tmp_path: Path) -> None:
    work = tmp_path / "new" / "probe-0"
    with heartbeat.signed(work):
        assert len(list(work.parent.iterdir())) == 1
        assert not heartbeat.has_killed(work)
    assert not list(work.parent.iterdir())


def test_a_dead_one_has(tmp_path: Path) -> None:
    work = tmp_path / "probe-0"
    died = subprocess.run([sys.executable, "-c", DIE_OVER_IT, str(work)], check=False)
    assert died.returncode == 9
    assert heartbeat.has_killed(work)
    assert not heartbeat.has_killed(tmp_path / "probe-2")


def test_a_beat_that_could_not_be_begun_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage stumbles as the work begins; the guard must not take that for a hang."""
    monkeypatch.setattr(heartbeat, "SECONDS", 0.0)
    closed = tmp_path / "stage"
    closed.touch()  # a file where the folder should be
    with heartbeat.at_work(closed / "k-means.beat"):
        closed.unlink()
        heartbeat.beat()
        assert heartbeat.owner(closed / "k-means.beat")["pid"] == os.getpid()


def test_what_cannot_be_seen_counts_as_alive(tmp_path: Path) -> None:
    """A process of another container, whose number is free or another's here."""
    sign = tmp_path / "probe-0-x.sign"
    sign.write_text(json.dumps({**heartbeat.this_process(), "pid": 2**22, "namespace": "other"}))
    assert not heartbeat.can_be_seen(heartbeat.owner(sign))
    assert not heartbeat.has_killed(tmp_path / "probe-0")


def test_two_processes_with_one_number_sign_beside_one_another(tmp_path: Path) -> None:
    work = tmp_path / "probe-0"
    with heartbeat.signed(work), heartbeat.signed(work):  # as two containers would
        assert len(list(tmp_path.iterdir())) == 2
    assert not list(tmp_path.iterdir())
