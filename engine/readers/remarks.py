"""What the names of a pool's files say that a person should know."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from engine.readers.files import PoolFile

_SPLITS: Final = {
    "train": "train",
    "training": "train",
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), "validation"),
}
_NUMBER: Final = re.compile(r"-\d+(-of-\d+)?$")
_PART: Final = re.compile(r"(.*)-(\d{5})-of-(\d{5})(.*)")


def remarks(files: Sequence[PoolFile]) -> list[str]:
    """Sentences about files of splits that are seldom meant for training, and parts that are
    missing; none where there is nothing to say.
    """
    return [*_about_splits(files), *_about_parts(files)]


def _about_splits(files: Sequence[PoolFile]) -> list[str]:
    counts = Counter(split for file in files if (split := _split(file.name)))
    if len(counts) < 2:
        return []
    each = ", ".join(f"{name} ({num:,} {_files(num)})" for name, num in sorted(counts.items()))
    return [
        f"The pool's files are of several splits: {each}. All of them are read, and rows of any "
        "may be selected; name the files of one split to leave the others out."
    ]


def _split(name: str) -> str | None:
    """The split that a file's name or folder names."""
    *folders, file = name.lower().split("/")
    stem = _NUMBER.sub("", file.partition(".")[0])
    return next((_SPLITS[word] for word in (stem, *reversed(folders)) if word in _SPLITS), None)


def _about_parts(files: Sequence[PoolFile]) -> list[str]:
    found: Counter[tuple[str, str, str]] = Counter()
    for file in files:
        if match := _PART.fullmatch(file.name):
            before, _, total, behind = match.groups()
            found[before, total, behind] += 1
    return [
        f"Of {before}-…-of-{total}{behind} the pool has {num:,} of {int(total):,} files: is the "
        "copy whole?"
        for (before, total, behind), num in sorted(found.items())
        if num < int(total)
    ]


def _files(num: int) -> str:
    return "file" if num == 1 else "files"
