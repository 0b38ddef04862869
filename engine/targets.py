"""Where a person may have a file written: never over what a run is made of, or is."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from engine import readers, staging
from engine.config import Config
from engine.errors import ConfigError, PoolError, RunDirError
from engine.step import (
    CENTROIDS_FILE,
    CLUSTER,
    FINETUNE,
    PERPLEXITY,
    POOL,
    REJECTED_FILE,
    SCORE,
    SELECT,
    SELECTED_JSONL,
    SELECTED_PARQUET,
    STEPS_FILE,
)
from engine.storage import patiently

SUFFIXES = (".jsonl", ".parquet")
_OF_A_RUN = (
    f"{POOL}/part-00000.parquet",
    f"{POOL}/{REJECTED_FILE}",
    f"{CLUSTER}/{CENTROIDS_FILE}",
    "hashes.json",
    f"proxies/any/{PERPLEXITY}/epoch-0/part-00000.parquet",
    f"proxies/any/{FINETUNE}/epoch-1/{STEPS_FILE}",
    f"proxies/any/{FINETUNE}/epoch-1/config.json",
    f"proxies/any/{SCORE}/part-00000.parquet",
    f"proxies/any/{SELECT}/{SELECTED_JSONL}",
    f"proxies/any/{SELECT}/{SELECTED_PARQUET}",
)
"""Files that a run makes and a pool's reader would take: one of each kind and folder."""


def refuse_target(target: Path, config: Config, run: Path, force: bool) -> None:
    """Refuse a file that must not be written.

    Args:
        target: what a person has named.
        config: of the run, whose inputs are named in it.
        run: the run directory.
        force: an existing file may be replaced, unless it is an input or the run's own.

    Raises:
        ConfigError: its suffix is not known, or it would be an input, a part of the run, or
            something that is there.
    """
    refuse_suffix(target)
    try:
        places = {_place(target), target.resolve()}  # a link, and where it leads
        if any(_lies_in(place, run) for place in places):
            raise ConfigError(
                f"--to {target} lies in the run directory {run}, whose files are the run's own.\n"
                "Name a file elsewhere."
            )
        for path in (*config.pool.paths, config.proxy.model, config.embed.model):
            if any(_is_part(place, path) for place in places):
                raise ConfigError(
                    f"--to {target} is, or would become, a part of {path}, which the run is made "
                    "from.\nName a file elsewhere."
                )
        if _is_source(target, config.pool.paths):
            raise ConfigError(f"--to {target} is a file of the pool. Name another one.")
        if os.path.lexists(target):
            if not target.is_symlink() and not target.is_file():
                raise ConfigError(f"--to {target} is there, and is no regular file.")
            if not force:
                raise ConfigError(f"--to {target} is there already. --force replaces it.")
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise RunDirError(f"--to {target} cannot be used: {why}") from None


def refuse_suffix(target: Path) -> None:
    """Refuse a file of a kind that no selection is written as.

    Raises:
        ConfigError: names the kinds.
    """
    if target.suffix not in SUFFIXES:
        raise ConfigError(f"--to {target}: the name must end in {' or '.join(SUFFIXES)}")


def write_target(target: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file, and put it under the name, whole or not at all.

    Missing folders above it are made.

    Raises:
        RunDirError: it cannot be written.
    """

    def put() -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with staging.staged(target) as temporary:
            write(temporary)

    try:
        patiently(put)
    except OSError as error:
        raise RunDirError(f"cannot write {target}: {error.strerror or error}") from None


def refuse_run_dir(paths: Iterable[str], run: Path) -> None:
    """Refuse a run directory whose files would become rows of the pool.

    Raises:
        ConfigError: it lies in a folder that the pool is read from.
    """
    for path in paths:
        pool = Path(path).expanduser()
        if pool.is_dir():
            mixed = _lies_in(run, pool) and not _is_hidden(run, pool)
        else:
            mixed = _is_found(path, *(run.resolve() / name for name in _OF_A_RUN))
        if mixed:
            raise ConfigError(
                f"--run-dir {run} lies in {path}, which the pool is read from: its files would be "
                "taken for rows.\nName a folder elsewhere."
            )


def _place(path: Path) -> Path:
    """Where a file lies itself, be it a link or not."""
    return path.parent.resolve() / path.name


def _lies_in(path: Path, folder: Path) -> bool:
    """Whether it is the folder or lies below it, by whatever name or mount."""
    if path.is_relative_to(folder.resolve()):
        return True
    return any(_is_same(above, folder) for above in (path, *path.parents))


def _is_same(one: Path, other: Path) -> bool:
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return False


def _is_hidden(path: Path, folder: Path) -> bool:
    """Whether a folder's readers leave it out."""
    with contextlib.suppress(ValueError):
        return any(part.startswith(".") for part in path.relative_to(folder.resolve()).parts)
    return False


def _is_part(path: Path, source: str) -> bool:
    """Whether a file is a named input, lies in a named folder or is matched by a named glob."""
    named = Path(source).expanduser()
    if named.is_dir():
        return _lies_in(path, named)
    if os.path.lexists(named):
        return path in (_place(named), named.resolve()) or _is_same(path, named)
    return _is_found(source, path)


def _is_found(source: str, *paths: Path) -> bool:
    """Whether a named input is a glob that finds one of these files."""
    is_glob = readers.is_glob(source) and not os.path.lexists(Path(source).expanduser())
    return is_glob and readers.would_find(source, *paths)


def _is_source(target: Path, paths: Sequence[str]) -> bool:
    """Whether it is a file of the pool under another name, as a hard link is."""
    try:
        files = readers.find_files(paths)
    except PoolError:  # the pool is gone
        return False
    return any(_is_same(target, file.path) for file in files)
