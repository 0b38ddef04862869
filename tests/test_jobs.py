"""The configurations people copy, and a real ``ray job submit`` to a local head node."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import engine
from engine.config import Config

REPOSITORY = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
TOKEN = "a-token-for-tests-only"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "jobs").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_job_file_loads(path: Path) -> None:
    config = Config.load(path)
    assert config.select.percent == 10


@pytest.mark.parametrize("name", ["alpaca", "dolly"])
def test_the_papers_settings(name: str) -> None:
    config = Config.load(REPOSITORY / "jobs" / f"{name}.yaml")
    assert config.proxy.template == "alpaca"
    assert config.proxy.max_tokens == 512
    assert config.finetune.learning_rate == 2e-5
    assert config.finetune.schedule == "published"
    assert config.finetune.schedule_epochs == 3
    assert config.finetune.batch_size == 96
    assert config.finetune.warmup_fraction == 0.03
    assert config.finetune.weight_decay == 0
    assert config.finetune.seed == 42
    assert config.embed.model == "sentence-transformers/all-MiniLM-L6-v2"
    assert config.embed.max_tokens == 256


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    """A head node with a dashboard and token authentication; its address and the client's env."""
    # Ray's socket paths must stay short, so not under pytest's own folder.
    folder = Path(tmp_path_factory.mktemp("ray", numbered=True))
    short = Path(f"/tmp/ps{os.getpid()}")
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
    }
    environment.pop("RAY_ADDRESS", None)
    port, dashboard = free_port(), free_port()
    command = [
        *(str(BIN / "ray"), "start", "--head", "--block", f"--port={port}"),
        *(f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1", "--num-cpus=2"),
        f"--dashboard-agent-listen-port={free_port()}",  # the default one may be another Ray's
        *(f"--temp-dir={short}", "--object-store-memory=200000000", "--node-ip-address=127.0.0.1"),
    ]
    log = (folder / "head.log").open("w")
    process = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_for(address, process, folder / "head.log")
        yield address, environment
    finally:
        process.send_signal(signal.SIGTERM)  # --block ends the node's own processes with it
        process.wait(timeout=60)
        log.close()
        shutil.rmtree(short, ignore_errors=True)


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        if status_without_token(address) == 401:
            return
        time.sleep(0.5)
    raise AssertionError(log.read_text())


def status_without_token(address: str) -> int | None:
    try:
        with urllib.request.urlopen(f"{address}/api/jobs/", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


@pytest.mark.slow
def test_ray_job_submit_scores_a_pool(
    head: tuple[str, dict[str, str]], pool_file: Path, tiny_opt: Path, tmp_path: Path
) -> None:
    address, environment = head
    run_dir = tmp_path / "run"
    settings = {"proxy.model": tiny_opt, "proxy.max_tokens": 128, "clusters.num": 2}
    settings["pool.max_reject_fraction"] = 0.1
    command = [
        *(str(BIN / "ray"), "job", "submit", "--address", address, "--"),
        *(sys.executable, str(REPOSITORY / "jobs" / "run.py"), str(pool_file)),
        *("--run-dir", str(run_dir), "--config", str(REPOSITORY / "jobs" / "demo.yaml")),
        *(word for key, value in settings.items() for word in ("--set", f"{key}={value}")),
    ]
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
        # The dashboard answers a few seconds before the agent that starts jobs has joined it.
        if "No available agent" not in done.stderr or time.monotonic() > deadline:
            break
        time.sleep(1)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "succeeded" in done.stdout
    assert "hardest rows" in done.stdout
    run = engine.open_run(run_dir)
    assert {r.stage for r in run.records().values()} == {step.stage for step in run.steps}
    assert len(run.selection()) == 5  # 10% of 46 scored rows, halves up
    assert TOKEN not in json.dumps([r.model_dump() for r in run.records().values()])


@pytest.mark.slow
def test_the_job_api_is_closed_without_the_token(head: tuple[str, dict[str, str]]) -> None:
    assert status_without_token(head[0]) == 401
