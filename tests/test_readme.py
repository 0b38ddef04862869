"""The README's commands, run as they stand; those that need a hub, a GPU or a cluster aside."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from engine import cli

REPOSITORY = Path(__file__).parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
NOT_HERE = ("pool.jsonl", "job submit", "make ", "pip install")


def shell_commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.strip()]


def test_every_poolscore_command_parses() -> None:
    commands = [c for c in shell_commands() if c.startswith("poolscore ")]
    assert len(commands) >= 4
    for command in commands:
        cli.parser().parse_args(shlex.split(command)[1:])


@pytest.mark.slow
def test_the_demo_the_python_example_and_what_follows(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make demo`'s own command, then the Python lines on its result, then status and select."""
    (tmp_path / "engine").symlink_to(REPOSITORY / "engine")
    monkeypatch.chdir(tmp_path)
    pool = "engine/assets/sample/pool.jsonl"
    assert cli.main(["run", pool, "--run-dir", "runs/demo"]) == 0
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)  # noqa: S102
    hardest = names["hardest"]
    assert hardest["lp_app_1"][0].as_py() < 0  # some row got harder, and stands first
    ran = 0
    for command in shell_commands():
        if command.startswith("poolscore ") and not any(part in command for part in NOT_HERE):
            assert cli.main(shlex.split(command)[1:]) == 0
            ran += 1
    assert ran == 4
    assert len((tmp_path / "runs/hard.jsonl").read_text().splitlines()) == 61  # 5% of 1,213


def test_links_lead_somewhere() -> None:
    for document in [REPOSITORY / "README.md", *(REPOSITORY / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_importing_the_package_is_instant() -> None:
    """Counted in modules: `import engine` brings none of the heavy ones."""
    code = "import sys, engine; print([m for m in ('torch', 'ray', 'pyarrow') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "[]"
