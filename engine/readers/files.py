"""Which files a pool is made of: named ones, and those below folders and globs."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Final, NoReturn

from engine import hub
from engine.errors import PoolError
from engine.readers.globs import fixed_part, is_glob
from engine.readers.kinds import KNOWN, kind_of
from engine.readers.saved import SPLITS, check_splits, of_rows

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_FIXES: Final = {
    (".xlsx", ".xls", ".ods"): "save the sheet as CSV (UTF-8) and name that file",
    (".txt", ".md"): "rename it to .jsonl if each line is one row of JSON, to .tsv or .csv if it "
    "is a table",
    (".zip", ".tar", ".tar.gz", ".tgz", ".7z"): "unpack it and name the folder",
    (".xz", ".bz2", ".lz4"): "unpack it, or pack it again with gzip or zstd",
    (".pkl", ".pickle", ".pt", ".npy", ".npz"): "write its rows to a .jsonl or .parquet file; what "
    "it holds can run code, and is not opened",
    (".db", ".sqlite", ".sqlite3"): "write its table to a .csv or .jsonl file",
}
"""What to do about files of other kinds, by suffix."""


@dataclass(frozen=True)
class PoolFile:
    """A file of the pool."""

    path: Path
    """Where the file lies, absolute."""
    name: str
    """Path below the common folder of the pool's files, with ``/``; its own name if alone."""


def find_files(paths: Sequence[str]) -> list[PoolFile]:
    """The pool's files, sorted by name, each once however often it is named.

    A folder gives the files below it with a known suffix, hidden ones, linked folders and what
    tells about a data set (`saved`) left out; a glob gives the known files it matches and those
    below the folders it matches. Files that are named themselves are always taken.

    Raises:
        PoolError: a path is missing, of no known kind, or gives no file.
    """
    if not paths:
        fix = f"name files, folders or globs of {KNOWN}"
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
            raise PoolError("the file's suffix is none that is known", text, _fix_for(path.name))
        return [_regular(path)]
    if is_glob(text):
        # Path.glob takes no absolute pattern, and its * takes hidden files.
        matches = [Path(match) for match in glob(str(path), recursive=True)]  # noqa: PTH207
        folders = [match for match in matches if match.is_dir()]
        known = [match for match in matches if not match.is_dir() and _is_known(match.name)]
        base = fixed_part(path)
        files = [_inside(base, _regular(match)) for match in of_rows(known)]
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
        if SPLITS in files:
            check_splits(Path(parent))
        known = (name for name in files if not name.startswith(".") and _is_known(name))
        paths = of_rows(Path(parent, name) for name in known)
        found += [_inside(base or folder, _regular(path)) for path in paths]
    return found


def _inside(folder: Path, file: Path) -> Path:
    """Refuse a link that leads out of what was named: it could lead anywhere.

    The hub's cache keeps the files of a snapshot, or of folders in it, elsewhere.
    """
    own = folder.resolve()
    blobs = (home for base in (own, *own.parents) for home in hub.blobs(base, "datasets"))
    if not any(file.resolve().is_relative_to(home) for home in (own, *blobs)):
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
    return kind_of(name) is not None


def _fix_for(name: str) -> str:
    """What to do about a file of no known suffix."""
    found = (fix for ends, fix in _FIXES.items() if name.lower().endswith(ends))
    return next(found, f"convert it, or name a file ending in {KNOWN}")


def _no_match(what: str, where: str) -> NoReturn:
    fix = f"known suffixes are {KNOWN}; hidden files and those about a data set are left out"
    raise PoolError(what, where, fix)
