"""What must not be found: secrets of the environment anywhere, texts of rows in any log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from chaos_runs import FAULTS, save_tiny_embedder

from engine.config import Config
from engine.failures import STORY_FILE
from engine.step import CLUSTER, POOL, REPORT, SELECT, proxy_folder

SECRETS = {
    "HF_TOKEN": "hf_secret-canary-1",
    "AWS_SECRET_ACCESS_KEY": "aws-secret-canary-2",
    "SOME_API_KEY": "api-secret-canary-3",
}
TEXTS = ("row-canary-prompt", "row-canary-response")
REJECTED = "row-canary-rejected"
ALL = (*SECRETS.values(), *TEXTS, REJECTED)


def files_with(folder: Path, words: Sequence[str]) -> dict[str, Path]:
    """The files below a folder that hold one of the words, as ``path: word``."""
    return {
        f"{path.relative_to(folder)}: {word}": path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
        for content in [content_of(path)]
        for word in words
        if word.encode() in content
    }


def content_of(path: Path) -> bytes:
    """The file's bytes; of Parquet, which is compressed, the rows and what stands beside them."""
    content = path.read_bytes()
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        content += repr((table.schema.metadata, table.to_pylist())).encode()
    return content


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Rows with canaries in their texts, and a line with one that becomes no row."""
    path = tmp_path / "pool.jsonl"
    rows = [{"instruction": f"Say {TEXTS[0]} {i}", "output": f"{TEXTS[1]} {i}"} for i in range(40)]
    lines = [json.dumps(row) for row in rows]
    lines.append(json.dumps({"instruction": REJECTED}))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def ray() -> Iterator[Path]:
    """Where a run's Ray keeps its sessions; its sockets want a short path."""
    with tempfile.TemporaryDirectory(prefix="ps", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def run_among_secrets(
    tmp_path: Path, pool: Path, ray: Path, settings: dict[str, object], **environment: str
) -> subprocess.CompletedProcess[str]:
    """``poolscore run`` on a Ray and in a home of its own; no canary may be in what is said."""
    home = tmp_path / "home"
    home.mkdir()
    known = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    words = (w for name, value in settings.items() for w in ("--set", f"{name}={value}"))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "engine", "run", str(pool)),
            *("--run-dir", str(tmp_path / "run"), "--max-reject-fraction", "0.1", *words),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        env={**known, **SECRETS, "HOME": str(home), "RAY_TMPDIR": str(ray), **environment},
    )
    assert not [word for word in ALL if word in done.stdout + done.stderr]
    assert list(ray.rglob("*.log")), "Ray wrote its logs elsewhere, and nothing was looked at"
    assert not files_with(ray, ALL)
    assert not files_with(home, ALL)
    return done


@pytest.mark.slow
def test_no_secret_and_no_text_is_written_down(
    tmp_path: Path, pool: Path, ray: Path, tiny_opt: Path
) -> None:
    """Through every stage; a row's texts are in the pool, the selection and the report alone."""
    settings: dict[str, object] = {
        "embed.model": save_tiny_embedder(tmp_path / "embedder"),
        "proxy.model": tiny_opt,
        "proxy.name": "tiny",
        "finetune.batch_size": 16,
        "finetune.learning_rate": 1e-3,
    }
    done = run_among_secrets(tmp_path, pool, ray, settings)
    assert done.returncode == 0, done.stderr
    run_dir = tmp_path / "run"
    assert not files_with(run_dir, (*SECRETS.values(), REJECTED))
    own = proxy_folder(Config.from_tree({"proxy": {"name": "tiny"}}))
    with_texts = {path.parent.as_posix() for path in files_with(run_dir, TEXTS).values()}
    assert with_texts == {POOL, f"{own}/{SELECT}", f"{own}/{REPORT}"}
    assert not [name for name in files_with(run_dir, TEXTS) if ".json:" in name]  # no record


@pytest.mark.slow
def test_nor_when_a_worker_fails(tmp_path: Path, pool: Path, ray: Path) -> None:
    """By a full disk under k-means, in a task of its own: its whole story is written down."""
    marks = tmp_path / "marks"
    marks.mkdir()
    fault = {"kind": "full", "folders": {CLUSTER: 0}, "event": "open", "name": ".*.tmp"}
    told = json.dumps({**fault, "run_dir": str(tmp_path / "run"), "marks": str(marks)})
    environment = {"PYTHONPATH": str(FAULTS), "POOLSCORE_FAULT": told}
    done = run_among_secrets(tmp_path, pool, ray, {}, **environment)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    run_dir = tmp_path / "run"
    assert "Traceback" in (run_dir / STORY_FILE).read_text()
    assert not files_with(run_dir, (*SECRETS.values(), REJECTED))
    assert {path.parent.as_posix() for path in files_with(run_dir, TEXTS).values()} == {POOL}
