"""A pool, tiny models, and one undisturbed run that every disturbed one must equal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from conftest import COLOURS, THINGS, save_tiny_opt

import engine
from engine import cli, heartbeat
from engine.assets import bundled_proxy
from engine.config import STAGE_NAMES
from engine.models import ModelSource
from engine.readers import PIECE_BYTES
from engine.rundir import RECORD

NUM_ROWS, SHARD_ROWS = 120, 3
PROXY = "proxies/proxy"
FAULTS = Path(__file__).with_name("chaos") / "faults"
ONE = ("--set", "resources.num_workers=1")
"""Starts sooner than two actors, and gives the same bytes."""
SECONDS = 240
"""More than any run here takes; one that takes longer hangs."""


@dataclass(frozen=True)
class Chaos:
    """How runs are started, and what they must come to."""

    folder: Path
    whole: Path
    """The undisturbed run."""
    settings: tuple[str, ...]

    def start(
        self,
        run_dir: Path,
        *more: str,
        address: str | None = None,
        pool: Path | None = None,
        preexec_fn: Callable[[], object] | None = None,
        **environment: str,
    ) -> subprocess.Popen[str]:
        """``poolscore run`` in a process of its own; on a private Ray where no address is given."""
        ray = tempfile.mkdtemp(prefix="ps", dir="/tmp")  # Ray's sockets want a short path
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        known = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        where = {"RAY_ADDRESS": address} if address else {"RAY_TMPDIR": ray}
        out = run_dir.with_suffix(".log").open("a")
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "engine", "run", str(pool or self.folder / "pool.jsonl")),
                *("--run-dir", str(run_dir), *self.settings, *more),
            ],
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            env={**known, "HOME": str(home), **where, **environment},
            preexec_fn=preexec_fn,
        )

    def done_before(self, folder: str, name: str) -> Path:
        """A new run directory with what the undisturbed run had made before a stage."""
        run_dir = self.folder / name
        for step in engine.open_run(self.whole).steps:
            if step.folder == folder:
                break
            shutil.copytree(self.whole / step.folder, run_dir / step.folder)
        return run_dir

    def start_with(
        self, fault: Mapping[str, Any], run_dir: Path, *more: str
    ) -> subprocess.Popen[str]:
        """A run in which something happens, once or more; see ``chaos/faults``."""
        marks = Path(f"{run_dir}-marks-{len(list(run_dir.parent.glob(f'{run_dir.name}-marks-*')))}")
        marks.mkdir()
        told = {**fault, "run_dir": str(run_dir), "marks": str(marks)}
        return self.start(run_dir, *more, PYTHONPATH=str(FAULTS), POOLSCORE_FAULT=json.dumps(told))

    def marks(self, run_dir: Path) -> dict[str, str]:
        """What the faults of all runs on a run directory have noted down, by folder."""
        noted = run_dir.parent.glob(f"{run_dir.name}-marks-*/*")
        return {mark.name.replace("+", "/"): mark.read_text() for mark in noted}

    def finish(self, process: subprocess.Popen[str], run_dir: Path) -> None:
        """Wait for a run that has to succeed."""
        try:
            process.wait(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            raise
        assert process.returncode == 0, run_dir.with_suffix(".log").read_text()[-4000:]

    def look(self, run_dir: Path) -> None:
        """What is there reads as whole or as not there, at any moment, also for `status`."""
        assert cli.main(["status", str(run_dir)]) == 0
        for step in engine.open_run(run_dir).steps:
            record = step.run.record(step.folder)
            if record is not None:
                assert record.files.keys() <= step.run.sizes(step.folder).keys()
            for shard in step.run.shards(step.folder):
                step.run.read_table(step.folder, shard, step.fingerprint)

    def refuse_difference(self, run_dir: Path, until: str = STAGE_NAMES[-1]) -> None:
        """Every result is there, and is what it is without disturbance, byte for byte.

        Args:
            run_dir: a run that was disturbed.
            until: the last stage that it was to do.
        """
        steps = engine.open_run(self.whole).steps
        last = max(place for place, step in enumerate(steps) if step.stage == until)
        for pattern in ("*.parquet", "*.jsonl", "model.safetensors"):
            wanted, found = (
                {
                    f"{step.folder}/{path.name}": path
                    for step in steps[: last + 1]
                    for path in (where / step.folder).glob(pattern)
                }
                for where in (self.whole, run_dir)
            )
            assert wanted.keys() == found.keys()
            different = [n for n in wanted if wanted[n].read_bytes() != found[n].read_bytes()]
            assert not different


def wait_for(
    what: Callable[[], object], process: subprocess.Popen[str] | None, seconds: float = SECONDS
) -> object:
    """Poll until something comes true, while the run lives."""
    end = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        assert process is None or process.poll() is None, "the run ended before its time"
        assert time.monotonic() < end
        time.sleep(0.005)


def committed(run_dir: Path, folder: str = "") -> int:
    """Shards and records that are there so far."""
    walked = os.walk(run_dir / folder)  # minds no folder that goes while it is looked at
    names = [name for _, _, files in walked for name in files]
    return sum(fnmatch(name, "part-*.parquet") or name == RECORD for name in names)


def at_work(folder: Path, pattern: str = f"*{heartbeat.WORK}") -> int:
    """The process that is at work on a piece of a stage; 0 while there is none."""
    for path in sorted((folder / heartbeat.FOLDER).glob(pattern)):
        try:
            return int(json.loads(path.read_text())["pid"])
        except (OSError, ValueError):  # done in this very moment, or half written
            continue
    return 0


def save_tiny_embedder(folder: Path) -> Path:
    """A random one-layer BERT as a sentence-transformers folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(ModelSource("embed.model", "bundled").folder())
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    bert = folder.with_name("bert")
    BertModel(config).save_pretrained(bert)
    tokenizer.save_pretrained(bert)
    words = Transformer(str(bert), max_seq_length=64)
    SentenceTransformer(modules=[words, Pooling(32)], device="cpu").save(str(folder))
    return folder


def write_pool(path: Path) -> None:
    """Rows with a long note that no stage but the first looks at: two pieces, read by two tasks."""
    note = "x" * (5 * PIECE_BYTES // 4 // NUM_ROWS)
    rows = [
        {
            "instruction": f"Describe {COLOURS[i % 6]} {THINGS[i % 8]} number {i}.",
            "output": f"The {THINGS[i % 8]} is {COLOURS[i % 6]}." + " It stands here." * (i % 5),
            "note": note,
        }
        for i in range(NUM_ROWS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="session")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    """The undisturbed run on two actors; training on one worker, a checkpoint after each step."""
    folder = tmp_path_factory.mktemp("chaos")
    write_pool(folder / "pool.jsonl")
    assert bundled_proxy().folder.is_dir()
    settings = {
        "pool.shard_rows": SHARD_ROWS,
        "embed.model": save_tiny_embedder(folder / "embedder"),
        "proxy.model": save_tiny_opt(folder / "proxy"),
        "finetune.batch_size": 10,
        "finetune.learning_rate": 0.001,
        "resources.num_workers": 2,
        "resources.cpus_per_worker": 1,
        "resources.checkpoint_seconds": 0,
        "resources.stall_seconds": 60,
    }
    words = tuple(w for name, value in settings.items() for w in ("--set", f"{name}={value}"))
    made = Chaos(folder, folder / "whole", words)
    made.finish(made.start(made.whole), made.whole)
    yield made
    shutil.rmtree(folder, ignore_errors=True)


_RESULTS: dict[str, Counter[str]] = defaultdict(Counter)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count how often each promise was put to the test."""
    if report.when == "call" and "/chaos/" in report.nodeid:
        name = report.nodeid.rpartition("::")[2].partition("[")[0]
        _RESULTS[name.removeprefix("test_").replace("_", " ")][report.outcome] += 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table that docs/reliability.md shows."""
    if not _RESULTS:
        return
    terminalreporter.write_line("\n| fault | kept |\n|---|---|")
    for name, outcomes in _RESULTS.items():
        terminalreporter.write_line(f"| {name} | {outcomes['passed']} of {outcomes.total()} |")
