"""Progress lines: rate and time left come from this run's work alone."""

from __future__ import annotations

import errno
import io
import os
import time
from pathlib import Path

import pytest

from engine import heartbeat, live
from engine.mapping import _under_way
from engine.progress import Progress, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (185, "3 min 05 s"), (3599.6, "1 h 00 min"), (7800, "2 h 10 min")],
)
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_rate_and_time_left_leave_out_what_an_earlier_run_did() -> None:
    progress = Progress("embed", 1000, "rows", io.StringIO())
    progress.begin(600)
    assert "600 / 1,000 rows   60%" in progress.line(progress.start + 5)
    assert "left" not in progress.line(progress.start + 5)
    progress.add(100)
    line = progress.line(progress.start + 10)
    assert "70%" in line
    assert "10/s  30 s left" in line


def test_a_log_gets_few_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 2.0, 16.0, 17.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr("engine.heartbeat.beat", lambda: None)  # it looks at the clock as well
    out = io.StringIO()
    progress = Progress("embed", 10, "rows", out)
    for _ in range(4):
        progress.add(1)
    progress.finish()
    assert out.getvalue().splitlines() == [
        "  embed                           3 / 10 rows   30%  0/s  37 s left"
    ]


class Terminal(io.StringIO):
    """A terminal that keeps all that it was told."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        return [line.rstrip("\r") for line in self.getvalue().split("\r\033[K") if line.strip()]


def shown_until(progress: Progress, text: str) -> None:
    """Wait for the ticking thread to have shown something."""
    end = time.monotonic() + 20
    while text not in progress.out.getvalue():  # pyright: ignore[reportAttributeAccessIssue]
        assert time.monotonic() < end, progress.out
        time.sleep(0.01)


def test_a_stage_is_named_at_once_and_its_line_moves_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.progress.TICK_SECONDS", 0.01)
    monkeypatch.setenv("COLUMNS", "200")
    progress = Progress("embed", 1000, "rows", Terminal())
    under_way = [0]
    with progress.ticking("starting 2 workers …", lambda: under_way[0]):
        shown_until(progress, "0 / 1,000 rows    0%  starting 2 workers … 0 s")
        under_way[0] = 250
        shown_until(progress, "250 / 1,000 rows   25%")
        under_way[0] = 0  # written, and not yet counted as done
        progress.add(300)
        shown_until(progress, "300 / 1,000 rows   30%")
        under_way[0] = 5000  # never more than there is
        shown_until(progress, "1,000 / 1,000 rows  100%")
    assert progress.out.getvalue().endswith("\r\033[K")


def test_the_line_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.progress.TICK_SECONDS", 0.01)
    told = iter([10, 40, 0, 0])
    out = Terminal()
    progress = Progress("embed", 100, "rows", out)
    with progress.ticking("", lambda: next(told, 50)):
        shown_until(progress, "50 / 100 rows")
    counts = [int(line.split()[1]) for line in out.lines()]
    assert counts == sorted(counts)


def test_the_rate_is_that_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = Progress("embed", 10_000, "rows", io.StringIO())
    for second in range(1, 101):  # 10 rows a second
        now[0] = float(second)
        progress.add(10)
    for second in range(101, 201):  # then 50
        now[0] = float(second)
        progress.add(50)
    assert progress.done == 6000
    assert progress.line(now[0]).endswith(" 60%  50/s  1 min 20 s left")
    # Nothing comes any more: the rate falls, and what is left grows.
    assert progress.line(now[0] + 61).endswith("25/s  2 min 40 s left")


def test_all_is_said_of_all_alone() -> None:
    progress = Progress("embed", 1000, "rows", io.StringIO())
    progress.at(999)
    assert " 99%" in progress.line(progress.start + 1)
    progress.at(1000)
    assert "100%" in progress.line(progress.start + 1)


def test_a_line_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = Terminal()
    progress = Progress("perplexity epoch 0", 10**6, "rows", out)
    progress.at(1000)
    assert out.lines() == [progress.line(progress.start + 1)[:39]]


def test_work_without_a_count_says_how_long_it_has_taken() -> None:
    out = io.StringIO()
    progress = Progress("cluster", 0, "rows", out)
    with progress.ticking("k-means, 20 iterations …"):
        assert progress.line(progress.start + 75).endswith("k-means, 20 iterations …  1 min 15 s")
    assert out.getvalue() == "  cluster              k-means, 20 iterations …  0 s\n"


def test_workers_tell_how_many_rows_of_a_shard_they_have_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "SECONDS", 0.0)
    rows = {"part-00000.parquet": 100, "part-00001.parquet": 30}
    work = tmp_path / "part-00000.parquet.beat"
    assert _under_way(tmp_path / "none", rows) == 0
    with heartbeat.at_work(work):
        assert _under_way(tmp_path, rows) == 0
        heartbeat.beat(16)
        heartbeat.beat(16)
        assert heartbeat.rows_done(work) == 32
        assert _under_way(tmp_path, rows) == 32
        heartbeat.beat(500)  # such as a second attempt
        assert _under_way(tmp_path, rows) == 100
    assert not list(tmp_path.iterdir())
    with heartbeat.at_work(tmp_path / "part-00001.parquet.beat"):
        heartbeat.beat(7)
        assert _under_way(tmp_path, rows) == 7


class Closed(Terminal):
    """A terminal that has closed."""

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("is_terminal", [True, False])
def test_work_does_not_end_because_nobody_reads_of_it(
    is_terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.progress.PLAIN_SECONDS", 0.0)
    monkeypatch.setattr(Closed, "isatty", lambda self: is_terminal)
    progress = Progress("finetune epoch 1", 10, "rows", Closed())
    live.tell(tmp_path / "live", 3, 1.5)
    with progress.ticking("starting 1 worker …"):
        progress.add(1)
        watcher = live.Watcher(tmp_path / "live", progress)
        watcher.stop()
    progress.finish()
    assert progress.done == 3


def test_a_log_hears_of_what_is_mostly_quick_only_when_it_takes_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = io.StringIO()
    with Progress("score", 0, "", out).ticking("comparing what it reads …", at_once=False):
        pass
    assert out.getvalue() == ""
    with Progress("score", 0, "", out).ticking("comparing what it reads …"):
        pass
    assert out.getvalue() == "  score                comparing what it reads …  0 s\n"
    monkeypatch.setattr("engine.progress.PLAIN_SECONDS", 0.0)
    progress = Progress("tokens", 0, "", out)
    with progress.ticking("comparing what it reads …", at_once=False):
        shown_until(progress, "tokens")
