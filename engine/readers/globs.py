"""Whether a file that is not there yet would be found by a glob, as `files` finds the pool's."""

from __future__ import annotations

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


def would_find(pattern: str, path: Path) -> bool:
    """Whether a glob finds a file under this path, itself or in a folder.

    Links and ``..`` in the glob are followed as far as the folders are there.

    Args:
        pattern: as in pool.paths.
        path: absolute, its folder without links; missing folders may yet be made.
    """
    named = Path(pattern).expanduser().absolute()
    fixed = fixed_part(named)
    open_ = named.parts[len(fixed.parts) :]
    for num in range(len(open_) + 1):
        for folder in _folders(fixed, open_[:num]):
            if path.is_relative_to(folder):
                below = path.relative_to(folder).parts
                if _fits(below, open_[num:]):
                    return True
    return False


def _folders(fixed: Path, parts: Sequence[str]) -> set[Path]:
    """Folders that the beginning of a glob leads to, resolved."""
    if not parts:
        return {fixed.resolve()}
    matches = glob(str(fixed.joinpath(*parts)), recursive=True)  # noqa: PTH207
    return {match.resolve() for match in map(Path, matches) if match.is_dir()}


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
