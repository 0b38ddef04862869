"""How every benchmark here measures, prints and records.

A ratio is taken inside one process: the two arms alternate (A B B A …), so that a machine that gets
slower half-way slows both, and the median over the pairs stands. Counts and sizes are rows too.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
POOL_VARIABLE = "POOLSCORE_BENCH_POOL"
SHORT_SECONDS, SHORT_PAIRS, LONG_PAIRS = 20.0, 5, 3
"""Arms that take less than 20 s run in 5 pairs, longer ones in 3."""
_PACKAGES = ("ray", "torch", "deepspeed", "transformers", "sentence-transformers", "pyarrow")


@dataclass(frozen=True)
class Timing:
    """One run of one arm."""

    seconds: float
    """Wall clock."""
    cpu_seconds: float
    """User and system time of this process and of the children it has waited for."""


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, and whether it reaches its aim."""

    what: str
    against: str
    aim: str
    value: str
    reached: bool | None
    """None where nothing is aimed at: the figure is only reported."""
    details: dict[str, Any] = field(default_factory=dict)


def timed(arm: Callable[[], object]) -> Timing:
    """Run an arm once."""
    cpu, start = _cpu_seconds(), time.perf_counter()
    arm()
    return Timing(time.perf_counter() - start, _cpu_seconds() - cpu)


def alternate(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    pairs: int | None = None,
    warm_up: bool = True,
) -> tuple[list[Timing], list[Timing]]:
    """Time two arms in pairs A B B A …, after one untimed run of each.

    Args:
        ours: arm A; all its work is done when it returns.
        theirs: arm B, the same work.
        pairs: how many; without it 5, or 3 where the slower arm takes 20 s and more.
        warm_up: False leaves the untimed runs out, for arms of minutes (name `pairs` then).
    """
    warm = max(timed(ours).seconds, timed(theirs).seconds) if warm_up else 0.0
    count = pairs or (SHORT_PAIRS if warm < SHORT_SECONDS else LONG_PAIRS)
    a: list[Timing] = []
    b: list[Timing] = []
    for pair in range(count):
        for arm, timings in ((ours, a), (theirs, b))[:: 1 if pair % 2 == 0 else -1]:
            timings.append(timed(arm))
    return a, b


def ratio(
    what: str,
    against: str,
    at_least: float | None,
    timings: tuple[list[Timing], list[Timing]],
    work: float,
    unit: str,
    **details: Any,
) -> Row:
    """How many times faster `ours` was: median over the pairs, smallest and largest beside it.

    Args:
        what: the thing measured.
        against: the alternative.
        at_least: the ratio aimed at; None only reports it.
        timings: of `alternate`.
        work: units of work that one run of either arm does.
        unit: name of that unit, in the plural.
        details: further figures for the record.
    """
    seconds = tuple([timing.seconds for timing in arm] for arm in timings)
    a, b = map(statistics.median, seconds)
    arms = dict(zip(("ours", "theirs"), ([asdict(t) for t in arm] for arm in timings), strict=True))
    return times_as_fast(
        what,
        against,
        at_least,
        (seconds[0], seconds[1]),
        f"{work / a:,.0f} against {work / b:,.0f} {unit}/s",
        **arms,
        work=work,
        unit=unit,
        **details,
    )


def times_as_fast(
    what: str,
    against: str,
    at_least: float | None,
    seconds: tuple[list[float], list[float]],
    beside: str,
    **details: Any,
) -> Row:
    """A ratio from the seconds of pairs of runs, ours first; see `ratio`.

    Args:
        what: the thing measured.
        against: the alternative.
        at_least: the ratio aimed at; None only reports it.
        seconds: of each pair.
        beside: further figures, for the table.
        details: the same for the record.
    """
    ratios = [slow / fast for fast, slow in zip(*seconds, strict=True)]
    median = statistics.median(ratios)
    return Row(
        what,
        against,
        "" if at_least is None else f"≥ {at_least:g}×",
        f"{median:.2f}× ({min(ratios):.2f} to {max(ratios):.2f}); {beside}",
        None if at_least is None else median >= at_least,
        {"ratio": median, "ratios": ratios, **details},
    )


def limit(what: str, aim: str, value: str, reached: bool | None, **details: Any) -> Row:
    """A row that is a count, a size or a time of ours alone."""
    return Row(what, "", aim, value, reached, details)


def publish(name: str, rows: list[Row]) -> None:
    """Print the table and write ``benchmarks/results/NAME.json``."""
    print(f"\n{name}: {machine()['cpu']}, {machine()['cores']} cores, commit {machine()['commit']}")
    for row in rows:
        mark = {True: "reached", False: "MISSED", None: ""}[row.reached]
        against = f" against {row.against}" if row.against else ""
        print(f"  {row.what}{against}\n      {row.value:<66} {row.aim:<12} {mark}")
    RESULTS.mkdir(exist_ok=True)
    story = {"name": name, **machine(), "rows": [asdict(row) for row in rows]}
    (RESULTS / f"{name}.json").write_text(
        json.dumps(story, indent=1, ensure_ascii=False, default=float) + "\n", encoding="utf-8"
    )


def machine() -> dict[str, Any]:
    """Where and when this was measured, and with which versions."""
    git = ["git", "-C", str(REPOSITORY)]
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "versions": _versions(),
        "commit": _output([*git, "rev-parse", "--short=12", "HEAD"])
        + (
            "+"
            if _output([*git, "status", "--porcelain", "--", "engine", "benchmarks/*.py"])
            else ""
        ),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def pool_path() -> Path:
    """The pool to measure on: `POOLSCORE_BENCH_POOL`, else the bundled sample."""
    named = os.environ.get(POOL_VARIABLE)
    path = Path(named) if named else REPOSITORY / "engine/assets/sample/pool.jsonl"
    if not path.is_file():
        sys.exit(f"error: {POOL_VARIABLE} = {path} is no file")
    return path.resolve()


def first_lines(folder: Path, num: int) -> Path:
    """A file in `folder` of the pool's first `num` lines; the pool itself for 0."""
    if not num:
        return pool_path()
    path = folder / "pool.jsonl"
    with pool_path().open("rb") as lines:
        path.write_bytes(b"".join(islice(lines, num)))
    return path


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_bytes_above(arm: Callable[[], object]) -> int:
    """Largest resident memory while an arm runs, above what was resident before (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _resident_bytes("VmRSS")
    arm()
    return _resident_bytes("VmHWM") - before


def _resident_bytes(name: str) -> int:
    (line,) = (t for t in Path("/proc/self/status").read_text().splitlines() if t.startswith(name))
    return int(line.split()[1]) * 1024


def _cpu_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _versions() -> dict[str, str]:
    """Of what is installed: a GPU machine may hold torch and transformers alone."""
    installed = {
        distribution.name: distribution.version for distribution in metadata.distributions()
    }
    return {name: installed[name] for name in _PACKAGES if name in installed}


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
