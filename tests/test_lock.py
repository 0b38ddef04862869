"""One writer per run directory, and what becomes of a lock whose owner is gone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from engine import heartbeat, lock
from engine.errors import RunDirError
from engine.lock import exclusive
from engine.rundir import LOCK

HERE = socket.gethostname()


def leave_lock(
    folder: Path, host: str, pid: int, age: float = 0.0, namespace: str | None = None
) -> Path:
    """A lock as another run would have left it, its last heartbeat `age` seconds ago."""
    path = folder / LOCK
    owner = {**heartbeat.this_process(), "run": "other", "host": host, "pid": pid}
    del owner["started"]
    path.write_text(json.dumps(owner | ({"namespace": namespace} if namespace else {})))
    beat = time.time() - age
    os.utime(path, (beat, beat))
    return path


def owner_of(folder: Path) -> dict[str, object]:
    return json.loads((folder / LOCK).read_text())


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_lock_names_its_owner_and_goes_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "new"
    with exclusive(folder):
        owner = owner_of(folder)
        assert (owner["host"], owner["pid"]) == (HERE, os.getpid())
    assert not (folder / LOCK).exists()
    with exclusive(folder):
        assert owner_of(folder)["run"] != owner["run"]


def test_the_lock_goes_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path):
        raise ZeroDivisionError
    assert not (tmp_path / LOCK).exists()


def test_a_second_holder_is_refused_and_told_who_holds_it(tmp_path: Path) -> None:
    with exclusive(tmp_path):
        owner = owner_of(tmp_path)
        with pytest.raises(RunDirError) as caught, exclusive(tmp_path):
            pytest.fail("two runs hold one directory")
        assert owner_of(tmp_path) == owner  # the refused one left it alone
    message = str(caught.value)
    assert f"process {os.getpid()} on {HERE}" in message
    assert str(tmp_path) in message
    assert "--run-dir" in message


def test_another_process_is_refused_and_let_in_later(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from engine.lock import exclusive\n"
        "with exclusive(Path(sys.argv[1])): print('held')"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    root = Path(__file__).parents[1]
    with exclusive(tmp_path):
        refused = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert f"process {os.getpid()} on {HERE}" in refused.stderr
    let_in = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert let_in.stdout == "held\n", let_in.stderr


def test_the_lock_of_a_dead_process_is_taken_over_at_once(tmp_path: Path) -> None:
    leave_lock(tmp_path, HERE, ended_process())  # its heartbeat is fresh: it died just now
    with exclusive(tmp_path):
        assert owner_of(tmp_path)["pid"] == os.getpid()


def test_the_lock_of_a_living_process_is_kept_however_old(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        leave_lock(tmp_path, HERE, process.pid, age=10 * lock.STALE_SECONDS)
        expected = re.escape(f"process {process.pid} on {HERE}, heartbeat 1800 s ago")
        with pytest.raises(RunDirError, match=expected), exclusive(tmp_path):
            pytest.fail("taken from a living process")
        assert process.stdin is not None
        process.stdin.close()


def test_a_fresh_lock_of_another_host_is_respected(tmp_path: Path) -> None:
    pid = ended_process()  # says nothing about that number on the other host
    leave_lock(tmp_path, "node-7", pid, age=lock.STALE_SECONDS - 20)
    with pytest.raises(RunDirError, match=f"process {pid} on node-7"), exclusive(tmp_path):
        pytest.fail("taken from a living run")
    assert owner_of(tmp_path)["host"] == "node-7"


def test_a_lock_of_another_host_without_heartbeat_is_taken_over(tmp_path: Path) -> None:
    leave_lock(tmp_path, "node-7", os.getpid(), age=lock.STALE_SECONDS + 1)
    with exclusive(tmp_path):
        assert owner_of(tmp_path)["host"] == HERE


def test_a_run_in_another_container_of_this_host_keeps_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processes cannot be seen from here, and one there may well have this one's number."""
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.2)
    path = leave_lock(tmp_path, HERE, os.getpid(), namespace="other")
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.05):
            os.utime(path)

    other = threading.Thread(target=beat)
    other.start()
    with pytest.raises(RunDirError, match=f"process {os.getpid()} on"), exclusive(tmp_path):
        pytest.fail("taken from a living run")
    ended.set()
    other.join()


def test_the_lock_of_a_container_that_is_gone_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was started again, or the machine was: no need to wait until its heartbeat is old."""
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.1)
    leave_lock(tmp_path, HERE, os.getpid(), namespace="other")
    with exclusive(tmp_path):
        assert owner_of(tmp_path)["namespace"] == heartbeat.this_process()["namespace"]


@pytest.mark.parametrize("name", [LOCK, f"{LOCK}.guard"])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str) -> None:
    outside, folder = tmp_path / "precious.txt", tmp_path / "run"
    outside.write_text("mine")
    folder.mkdir()
    (folder / name).symlink_to(outside)
    with pytest.raises(RunDirError, match="is a link"), exclusive(folder):
        pytest.fail("the lock was taken")
    assert outside.read_text() == "mine"


@pytest.mark.parametrize("content", ["", "{", '{"run": "a", "host"'])
def test_a_lock_cut_short_is_taken_over(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK).write_text(content)
    with exclusive(tmp_path):
        assert owner_of(tmp_path)["pid"] == os.getpid()


def test_the_heartbeat_keeps_a_long_run_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    with exclusive(tmp_path):
        path = tmp_path / LOCK
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert abs(time.time() - path.stat().st_mtime) < 5


def test_a_run_that_lost_its_lock_stops_and_leaves_the_new_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell script
    taken = pytest.raises(RunDirError, match="taken over by process 1 on node-7")
    try:
        with taken, exclusive(tmp_path):
            leave_lock(tmp_path, "node-7", 1)  # it slept, and another host took over
            time.sleep(60)
            pytest.fail("it goes on beside the other one")
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert owner_of(tmp_path)["host"] == "node-7"


def test_the_lock_of_a_process_that_nobody_reaps_is_taken_over(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    leave_lock(tmp_path, HERE, process.pid)
    with exclusive(tmp_path):
        assert owner_of(tmp_path)["pid"] == os.getpid()
    process.wait()


@pytest.mark.parametrize("how", ["renamed", "removed", "another"])
def test_a_run_whose_directory_goes_stops_and_makes_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    folder, moved = tmp_path / "run", tmp_path / "moved"
    told = pytest.raises(RunDirError, match=r"run is gone: it was renamed or removed")
    with told, exclusive(folder):
        if how == "removed":
            shutil.rmtree(folder)
        else:
            folder.rename(moved)
        if how == "another":
            folder.mkdir()
        time.sleep(30)
        pytest.fail("it goes on")
    there = {"renamed": ["moved"], "removed": [], "another": ["moved", "run"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == there[how]
    assert how != "another" or list(folder.iterdir()) == []
    if how == "renamed":
        with exclusive(moved):  # the lock was given back where it had gone
            assert owner_of(moved)["pid"] == os.getpid()


def test_a_directory_that_cannot_be_seen_for_a_moment_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.3)
    folder, moved = tmp_path / "run", tmp_path / "moved"
    with exclusive(folder):
        folder.rename(moved)
        time.sleep(0.35)
        moved.rename(folder)
        time.sleep(0.7)
    assert not (folder / LOCK).exists()


def test_what_fails_first_in_a_directory_that_is_gone_is_no_riddle(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    told = pytest.raises(RunDirError, match="run is gone")
    with told, exclusive(folder):
        folder.rename(tmp_path / "moved")
        (folder / "2-embed").mkdir()
