"""SHA-256 of the files that a run depends on, remembered per path, size and times."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from engine.errors import RunDirError
from engine.storage import patiently

_DIGEST = re.compile("[0-9a-f]{64}")


def sha256(path: Path) -> str:
    """Of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_files(paths: Mapping[str, Path], known: dict[str, str]) -> dict[str, str]:
    """SHA-256 of files by name.

    Args:
        paths: the files.
        known: digests by path, size and times; those found are added.

    Raises:
        RunDirError: a file is gone or unreadable.
    """
    digests: dict[str, str] = {}
    for name, path in paths.items():
        try:
            status = patiently(path.stat)
            # The last of them nobody can set back, as copying tools do with the one before.
            times = f"{status.st_mtime_ns}|{status.st_ctime_ns}"
            key = f"{path.resolve()}|{status.st_size}|{times}"
            if key not in known:
                known[key] = patiently(partial(sha256, path))
        except OSError as error:
            raise RunDirError(
                f"cannot read {path}, which this run depends on: {error.strerror}.\n"
                "Check that it is there and that you may read it."
            ) from None
        digests[name] = known[key]
    return digests


def remembered(path: Path) -> dict[str, str]:
    """What a file of digests holds; empty where there is none, or where it holds nonsense."""
    try:
        told: object = json.loads(patiently(path.read_bytes))
    except (OSError, ValueError, RecursionError):
        return {}
    known = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
    return {k: v for k, v in known.items() if isinstance(v, str) and _DIGEST.fullmatch(v)}
