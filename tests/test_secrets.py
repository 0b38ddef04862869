"""What must not be found: secrets of the environment anywhere, texts of rows in any log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SECRETS = {
    "HF_TOKEN": "hf_secret-canary-1",
    "AWS_SECRET_ACCESS_KEY": "aws-secret-canary-2",
    "SOME_API_KEY": "api-secret-canary-3",
}
TEXTS = ("row-canary-prompt", "row-canary-response", "row-canary-rejected")


def files_with(folder: Path, words: Iterator[str] | tuple[str, ...]) -> list[str]:
    """Files below a folder that hold one of the words, whatever kind they are."""
    wanted = [word.encode() for word in words]
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            found += [f"{path}: {word.decode()}" for word in wanted if word in content]
    return found


@pytest.mark.slow
def test_no_secret_and_no_text_is_written_down(tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    rows = [{"instruction": f"Say {TEXTS[0]} {i}", "output": f"{TEXTS[1]} {i}"} for i in range(40)]
    lines = [json.dumps(row) for row in rows]
    lines.append(json.dumps({"instruction": f"{TEXTS[2]}"}))
    pool.write_text("\n".join(lines) + "\n")
    with tempfile.TemporaryDirectory(prefix="ps", dir="/tmp") as ray:
        known = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        done = subprocess.run(
            [
                *(sys.executable, "-m", "engine", "run", str(pool), "--until", "tokens"),
                *("--run-dir", str(tmp_path / "run"), "--max-reject-fraction", "0.1"),
            ],
            capture_output=True,
            text=True,
            timeout=240,
            env={**known, **SECRETS, "RAY_TMPDIR": ray},
        )
        assert done.returncode == 0, done.stderr
        logs = Path(ray)
        assert list(logs.rglob("*.log")), "Ray wrote its logs elsewhere, and nothing was looked at"
        assert files_with(logs, (*SECRETS.values(), *TEXTS)) == []
    said = done.stdout + done.stderr
    assert not [word for word in (*SECRETS.values(), *TEXTS) if word in said]
    assert files_with(tmp_path / "run", tuple(SECRETS.values())) == []
    records = [*(tmp_path / "run").rglob("*.json"), tmp_path / "run" / "run.yaml"]
    assert not [path for path in records if TEXTS[0] in path.read_text()]
