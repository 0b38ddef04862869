"""Progress lines: rate and time left come from this run's work alone."""

from __future__ import annotations

import io

import pytest

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
