"""Which files a pool is made of: named ones, and those below folders and globs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from itertools import takewhile
from pathlib import Path
from typing import Final, NoReturn

from engine.errors import PoolError

SUFFIXES: Final = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".jsonl.zst")
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_GLOB: Final = re.compile(r"[*?[]")


@dataclass(frozen=True)
class PoolFile:
    """A file of the pool."""

    path: Path
    """Where the file lies, absolute."""
    name: str
    """Path below the common folder of the pool's files, with ``/``; its own name if alone."""


def find_files(paths: Sequence[str]) -> list[PoolFile]:
    """The pool's files, sorted by name, each once however often it is named.

    A folder gives the files below it with a known suffix, hidden ones and linked folders left out;
    a glob gives the known files it matches and those below the folders it matches.

    Raises:
        PoolError: a path is missing, of no known kind, or gives no file.
    """
    if not paths:
        fix = f"name files, folders or globs of {_suffixes()}"
        raise PoolError("the pool names no files", "pool.paths", fix)
    # The folder is resolved, the file's own name is kept: a link may point to a name of no suffix.
    named = {found.parent.resolve() / found.name for path in paths for found in _expand(path)}
    unique: dict[Path, Path] = {}
    for path in sorted(named):
        unique.setdefault(path.resolve(), path)
    common = os.path.commonpath([path.parent for path in unique.values()])
    files = [PoolFile(path, path.relative_to(common).as_posix()) for path in unique.values()]
    return sorted(files, key=lambda file: file.name)


def _expand(text: str) -> list[Path]:
    """The files that one entry of pool.paths stands for."""
    if _SCHEME.match(text):
        fix = "download it first and name the local file; pools are read from disk"
        raise PoolError("a pool path is an address, not a path", text, fix)
    path = Path(text).expanduser() if text else Path("an empty path in pool.paths")
    if path.is_dir():
        return _below(path) or _no_match("the folder holds no pool file", text)
    if os.path.lexists(path):
        if not _is_known(path.name):
            fix = f"convert it, or name a file ending in {_suffixes()}"
            raise PoolError("the file's suffix is none that is known", text, fix)
        return [_regular(path)]
    if _GLOB.search(text):
        # Path.glob takes no absolute pattern, and its * takes hidden files.
        matches = [Path(match) for match in glob(str(path), recursive=True)]  # noqa: PTH207
        folders = [match for match in matches if match.is_dir()]
        known = [match for match in matches if not match.is_dir() and _is_known(match.name)]
        base = Path(*takewhile(lambda part: not _GLOB.search(part), path.parts))
        files = [_inside(base, _regular(match)) for match in known]
        below = [file for folder in folders for file in _below(folder, base)]
        return files + below or _no_match("the glob matches no pool file", text)
    fix = "check the spelling; paths are relative to the folder the run is started in"
    raise PoolError("a pool path does not exist", str(path), fix)


def _below(folder: Path, base: Path | None = None) -> list[Path]:
    """Every known file below a folder, hidden files and folders left out.

    Args:
        folder: where to look.
        base: what was named, where that is not the folder itself.
    """
    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=_stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        known = (name for name in files if not name.startswith(".") and _is_known(name))
        found += [_inside(base or folder, _regular(Path(parent, name))) for name in known]
    return found


def _inside(folder: Path, file: Path) -> Path:
    """Refuse a link that leads out of what was named: it could lead anywhere."""
    if not file.resolve().is_relative_to(folder.resolve()):
        fix = "name the file itself, if you mean it, or move the link out of the pool"
        raise PoolError(f"a link leads out of {folder}", f"{file} → {file.resolve()}", fix)
    return file


def _stop(error: OSError) -> NoReturn:
    """os.walk leaves out what it cannot list, and rows would be missing without a word."""
    raise PoolError(
        f"a folder cannot be listed: {error.strerror}",
        str(error.filename),
        "give it read permission, or name the files you mean",
    )


def _regular(path: Path) -> Path:
    if not path.is_file():
        fix = "repair the link, or move it out of the pool"
        raise PoolError("this is no regular file (a broken link, a pipe?)", str(path), fix)
    try:
        str(path).encode()
    except UnicodeEncodeError:
        fix = "rename it: its name becomes a column of the pool"
        raise PoolError("a file name is not valid UTF-8", repr(os.fsencode(path)), fix) from None
    return path


def _is_known(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _suffixes() -> str:
    return ", ".join(SUFFIXES)


def _no_match(what: str, where: str) -> NoReturn:
    raise PoolError(what, where, f"known suffixes are {_suffixes()}; hidden files are left out")
