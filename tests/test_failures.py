"""What is told of a worker that failed: what the storage says, before anybody guesses at memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from handmade import make_step
from ray.exceptions import ActorDiedError

from engine.errors import RunDirError, WorkerError
from engine.failures import for_people, storage_now, understood
from engine.pipeline import begun
from engine.step import UNDER_WAY


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            OSError(errno.EROFS, "Read-only file system", "/data/x"),
            "Read-only file system: /data/x",
        ),
        (RuntimeError("I/O error: Read-only file system (os error 30)"), "Read-only file system"),
        (ValueError("No space left on device (os error 28)"), "No space left on device"),
        (RuntimeError("write failed: Disk quota exceeded"), "Disk quota exceeded"),
        (RuntimeError("could not open x: Permission denied"), "Permission denied"),
    ],
)
def test_a_disk_is_named_whatever_library_says_it(error: Exception, told: str) -> None:
    found = understood("embed", error)
    assert isinstance(found, RunDirError)
    assert str(found).startswith(f"embed: {told}")
    assert "Make room or mend the access" in str(found)


def test_nothing_is_read_into_other_errors() -> None:
    assert understood("embed", ValueError("a row's own trouble")) is None


def refuse_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a remount: what is there can be read."""

    def refuse(path: Path, data: bytes) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "write_bytes", refuse)


def test_an_actor_that_died_on_a_read_only_disk_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = make_step(tmp_path, "embed", "2-embed")
    refuse_writing(monkeypatch)
    with pytest.raises(RunDirError, match="Read-only file system") as caught, for_people(step):
        raise ActorDiedError
    assert "out of memory" not in str(caught.value)


def test_an_actor_that_died_on_a_sound_disk_may_have_been_out_of_memory(tmp_path: Path) -> None:
    step = make_step(tmp_path, "embed", "2-embed")
    with pytest.raises(WorkerError, match="most often out of memory"), for_people(step):
        raise ActorDiedError
    assert storage_now("embed", tmp_path) is None
    assert list(tmp_path.glob(".*")) == []


def test_nothing_is_written_through_links_that_lie_in_wait(tmp_path: Path) -> None:
    step = make_step(tmp_path / "run", "embed", "2-embed")
    victim = tmp_path / "mine.txt"
    victim.write_text("dear to me")
    for name in (".probe", UNDER_WAY):
        (step.run.path / name).symlink_to(victim)
    assert storage_now("embed", step.run.path) is None
    with begun(step):
        assert (step.run.path / UNDER_WAY).read_text() == step.folder
    assert victim.read_text() == "dear to me"
    assert not (step.run.path / UNDER_WAY).is_symlink()
