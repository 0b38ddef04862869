"""Whether a file that is not there yet would be found by a glob, as `files` finds the pool's."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from glob import glob
from itertools import takewhile
from pathlib import Path

_GLOB = re.compile(r"[*?[]")
_ANY_DEPTH = "**"


def is_glob(text: str) -> bool:
    """Whether it has a letter that stands for others."""
    return _GLOB.search(text) is not None


def fixed_part(pattern: Path) -> Path:
    """The folder above the first part of a glob that stands for several names."""
    return Path(*takewhile(lambda part: not is_glob(part), pattern.parts))


def would_find(pattern: str, *paths: Path) -> bool:
    """Whether a glob finds a file under one of these paths, itself or in a folder.

    Links and ``..`` in the glob are followed as far as the folders are there.

    Args:
        pattern: as in pool.paths.
        paths: absolute, their folders without links; missing folders may yet be made.
    """
    named = Path(pattern).expanduser().absolute()
    fixed = fixed_part(named)
    open_ = named.parts[len(fixed.parts) :]
    return any(
        _fits(path.relative_to(folder).parts, open_[num:])
        for num in range(len(open_) + 1)
        for folder in _folders(fixed, open_[:num])
        for path in paths
        if path.is_relative_to(folder)
    )


def _folders(fixed: Path, parts: Sequence[str]) -> set[Path]:
    """Folders that the beginning of a glob leads to, resolved."""
    if not parts:
        return {fixed.resolve()}
    # An empty last part leaves out all but folders.
    matches = glob(os.path.join(fixed, *parts, ""), recursive=True)  # noqa: PTH118, PTH207
    return {Path(match).resolve() for match in matches}


def _fits(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a file's names match, or those of a folder that it lies in, and nothing is hidden
    that the pattern does not name so.
    """
    if not pattern:
        return not any(name.startswith(".") for name in names)
    first, rest = pattern[0], pattern[1:]
    if first == _ANY_DEPTH and _fits(names, rest):
        return True
    if not names:
        return False
    if first == _ANY_DEPTH:
        return not names[0].startswith(".") and _fits(names[1:], pattern)
    return _is_named(names[0], first) and _fits(names[1:], rest)


def _is_named(name: str, pattern: str) -> bool:
    if not is_glob(pattern):
        return name == pattern
    return fnmatchcase(name, pattern) and (not name.startswith(".") or pattern.startswith("."))
