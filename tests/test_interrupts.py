"""What stops a run, by real signals to real processes: one line, the right code, nothing left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from chaos_runs import PROXY, save_tiny_embedder, wait_for
from conftest import save_tiny_opt

import engine
from engine import cli, interrupts, live
from engine.checkpoints import FOLDER as CHECKPOINTS
from engine.rundir import LOCK
from engine.step import EMBED, FINETUNE, STEPS_FILE, UNDER_WAY

TRAINED = f"{PROXY}/{FINETUNE}/epoch-1"
SECONDS = 120


@pytest.fixture(autouse=True)
def as_from_a_terminal() -> Iterator[None]:
    """No signal is ignored, as some are under nohup and in the background of a script."""
    before = {n: signal.signal(n, signal.default_int_handler) for n in interrupts.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# ── in this process ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_raises_and_those_during_the_clean_up_do_not(number: int) -> None:
    cleaned = []
    before = signal.getsignal(number)

    def clean_up() -> Iterator[None]:
        try:
            yield
        finally:
            os.kill(os.getpid(), number)
            cleaned.append("all")

    with pytest.raises(interrupts.Stopped) as caught, interrupts.stopping():  # noqa: PT012
        holding = clean_up()
        next(holding)
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            holding.close()
    assert cleaned == ["all"]
    assert caught.value.code == 128 + number
    name = signal.Signals(number).name
    assert str(caught.value) == f"stopped by {name}; the same command goes on where it was"
    assert signal.getsignal(number) == before


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    try:
        with interrupts.stopping():
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_swallowed_stop_is_found_later_and_a_second_signal_raises_again() -> None:
    with interrupts.stopping():
        for _ in range(2):
            with pytest.raises(interrupts.Stopped):
                os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(interrupts.Stopped, match="SIGTERM"):
            interrupts.refuse_to_go_on()
    interrupts.refuse_to_go_on()  # of another block's signals nothing is left


def test_a_polite_stop_asks_once_and_raises_at_the_second_signal() -> None:
    asked: list[str] = []
    with (  # noqa: PT012
        pytest.raises(interrupts.Stopped),
        interrupts.stopping(),
        interrupts.asked_politely(lambda: asked.append("stop")),
    ):
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked == ["stop"]
        os.kill(os.getpid(), signal.SIGTERM)
    assert asked == ["stop"]


def test_a_polite_stop_raises_at_the_end_of_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "GRACE_SECONDS", 0.1)
    with (  # noqa: PT012
        pytest.raises(interrupts.Stopped),
        interrupts.stopping(),
        interrupts.asked_politely(lambda: None),
    ):
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(10)


def test_no_handler_is_set_in_another_thread() -> None:
    found: list[object] = []

    def look() -> None:
        with interrupts.stopping():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


CLOSED = """
import fcntl, sys, termios, time
from engine import cli, interrupts
from engine.progress import Progress

fcntl.ioctl(0, termios.TIOCSCTTY, 0)

def run(options):
    with interrupts.stopping():
        progress = Progress("finetune epoch 1", 10, "rows")
        try:
            with progress.ticking("working …"):
                open(sys.argv[1], "w").close()
                time.sleep(60)
        finally:
            progress.at(3)
            progress.finish()
            open(f"{sys.argv[1]}.ended", "w").close()

cli.run = run
sys.exit(cli.main(["run", "pool.jsonl", "--run-dir", "r"]))
"""


def test_a_terminal_that_closes_stops_a_run_as_its_signal_does(tmp_path: Path) -> None:
    """It cannot be written to any more, and its progress and its last line go nowhere."""
    ours, theirs = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", CLOSED, str(tmp_path / "begun")],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        wait_for((tmp_path / "begun").exists, None, SECONDS)
        os.close(ours)
        assert child.wait(SECONDS) == 128 + signal.SIGHUP
        assert (tmp_path / "begun.ended").exists()  # in order, not cut short
    finally:
        child.kill()


HANGS = """
import subprocess, sys, time
from pathlib import Path
from engine import interrupts
from engine.lock import exclusive

interrupts.CLEAN_UP_SECONDS = 0.5
with interrupts.stopping(for_good=True), exclusive(Path(sys.argv[1])):
    child = subprocess.Popen(["sleep", "600"])
    try:
        print(child.pid, flush=True)
        time.sleep(600)
    finally:
        time.sleep(600)
"""


def lives(process: psutil.Process | None) -> bool:
    """Whether it still does anything; in a container nobody may look after what has ended."""
    try:
        return process is not None and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_clean_up_that_hangs_is_cut_short(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HANGS, str(tmp_path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 143
    assert told.strip().startswith("stopped by SIGTERM")
    assert not (tmp_path / LOCK).exists()
    assert not lives(psutil.Process(child) if psutil.pid_exists(child) else None)


# ── real runs ────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Runs:
    """Starts runs over one small pool and tiny models, whose training takes a while."""

    folder: Path
    words: tuple[str, ...]

    def start(self, run_dir: Path, *more: str) -> subprocess.Popen[str]:
        out = run_dir.with_suffix(".log").open("w")
        known = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "engine", "run", str(self.folder / "pool.jsonl")),
                *("--run-dir", str(run_dir), *self.words, *more),
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            env=known,
            process_group=0,
        )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("stopped")
    rows = [{"instruction": f"Count to {i}.", "output": f"{i} is a number."} for i in range(600)]
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "embed.model": save_tiny_embedder(folder / "embedder"),
        "proxy.model": save_tiny_opt(folder / "proxy"),
        "pool.shard_rows": 300,
        "finetune.batch_size": 1,
        "finetune.learning_rate": 0.0001,
        "resources.num_workers": 1,
    }
    words = tuple(w for name, value in settings.items() for w in ("--set", f"{name}={value}"))
    return Runs(folder, words)


def told_at_the_end(process: subprocess.Popen[str], run_dir: Path) -> str:
    """Its last line, once it has ended with nothing left behind."""
    mine = processes(run_dir)
    process.wait(timeout=SECONDS)
    log = run_dir.with_suffix(".log").read_text()
    assert "Traceback" not in log, log
    assert not any(line.startswith(("[20", "***")) for line in log.splitlines()), log  # of C++
    assert not (run_dir / LOCK).exists()
    wait_for(lambda: not any(map(lives, mine)), None, seconds=20)
    return log.splitlines()[-1]


def processes(run_dir: Path) -> list[psutil.Process]:
    """Everything that a run has started: the private Ray, its agents and workers."""
    try:
        pid = json.loads((run_dir / LOCK).read_text())["pid"]
        return psutil.Process(pid).children(recursive=True)
    except (OSError, ValueError, psutil.Error):
        return []


def state_of(run_dir: Path, stage: str) -> str:
    return next(e.state for e in engine.open_run(run_dir).status().stages if e.step.stage == stage)


def rows_trained(run_dir: Path) -> int:
    try:
        return int(json.loads((run_dir / TRAINED / live.FILE).read_text())["rows"])
    except (OSError, ValueError):
        return 0


def test_sigterm_to_the_whole_group_while_embedding(runs: Runs, tmp_path: Path) -> None:
    """As `timeout` and Slurm send it; Ray's own processes must not be gone before the run is."""
    run_dir = tmp_path / "embed"
    process = runs.start(run_dir, "--until", "embed")
    wait_for(lambda: (run_dir / EMBED / ".working").exists(), process)
    assert state_of(run_dir, "embed") == "running"
    os.killpg(process.pid, signal.SIGTERM)
    assert told_at_the_end(process, run_dir).startswith("stopped by SIGTERM; the same command goes")
    assert process.returncode == 143
    assert (run_dir / UNDER_WAY).read_text() == EMBED
    assert state_of(run_dir, "embed") == "interrupted"
    assert state_of(run_dir, "pool") == "done"
    assert state_of(run_dir, "tokens") == "missing"


@pytest.mark.parametrize("seconds", [0.6, 1.5, 3.0])
def test_sigterm_at_any_moment_of_the_beginning(runs: Runs, tmp_path: Path, seconds: float) -> None:
    """While Python imports, while Ray starts: in these moments nothing is held yet, or half."""
    run_dir = tmp_path / "begins"
    process = runs.start(run_dir, "--until", "pool")
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=SECONDS)
    log = run_dir.with_suffix(".log").read_text()
    assert process.returncode in (143, -signal.SIGTERM), log  # the latter before our first line
    assert "Traceback" not in log, log
    assert not (run_dir / LOCK).exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_stopped_epoch_keeps_a_checkpoint_and_goes_on_from_it(runs: Runs, tmp_path: Path) -> None:
    run_dir = tmp_path / "epoch"
    process = runs.start(run_dir, "--until", "finetune")
    wait_for(lambda: rows_trained(run_dir) >= 20, process, seconds=600)
    process.send_signal(signal.SIGINT)
    told = told_at_the_end(process, run_dir)
    assert process.returncode == 130
    (kept,) = (run_dir / TRAINED / CHECKPOINTS).glob("*/step-*")
    step = int(kept.name.removeprefix("step-"))
    assert told == (
        f"stopped by SIGINT; the same command goes on behind step {step} of finetune epoch 1"
    )
    assert state_of(run_dir, "finetune") == "interrupted"
    process = runs.start(run_dir, "--until", "finetune")
    wait_for(lambda: rows_trained(run_dir) > 0, process, seconds=600)
    first_seen = rows_trained(run_dir)
    assert first_seen > step
    # Twice within the grace: at once, and what is told is what is kept.
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    told = told_at_the_end(process, run_dir)
    assert process.returncode == 129
    last = max((run_dir / TRAINED / CHECKPOINTS).glob("*/step-*"))
    assert f"goes on behind step {int(last.name.removeprefix('step-'))} of finetune" in told
    assert not (run_dir / TRAINED / STEPS_FILE).exists()


@pytest.mark.parametrize("command", [["plan", "POOL"], ["status", "RUN"]])
def test_other_commands_stop_as_well(runs: Runs, tmp_path: Path, command: list[str]) -> None:
    """Without a word of going on: they have nothing to go on with."""
    words = [str(runs.folder / "pool.jsonl") if w == "POOL" else w for w in command]
    code = (
        "import os, signal, sys\nfrom engine import cli\n"
        f"cli.{command[0]} = lambda options: os.kill(os.getpid(), signal.SIGTERM)\n"
        f"sys.exit(cli.main({words!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 143
    assert done.stderr == "\nstopped by SIGTERM\n"


def test_main_tells_a_stop_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: object) -> None:
        raise interrupts.Stopped(signal.SIGTERM, "the same command begins pool again")

    monkeypatch.setattr(cli, "run", stop)
    stoppable: Callable[..., int] = cli.main
    assert stoppable(["run", "p.jsonl", "--run-dir", "r"]) == 143
    assert capsys.readouterr().err == ("\nstopped by SIGTERM; the same command begins pool again\n")
