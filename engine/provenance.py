"""What a result was made with: versions of packages, and the commit of this one."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

from engine import __version__

_PACKAGES = ("ray", "torch", "deepspeed", "transformers", "sentence-transformers", "pyarrow")


def versions() -> dict[str, str]:
    """Versions of what the results depend on."""
    return {
        "poolscore": __version__,
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
    }


def commit() -> str | None:
    """Commit of the source tree this package runs from, with ``+`` where it was changed."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(here))
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
