"""Whether a finished stage's folder holds what its record lists, and nothing else.

Sizes are compared whenever a stage is read; digests of what bears no checksums of its own (all but
Parquet) before another stage uses it, and of everything for ``poolscore status --verify``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from engine import terminal
from engine.errors import RunDirError
from engine.record import FileEntry, Record, is_state
from engine.rundir import RunDir
from engine.threads import in_order

MAX_LISTED = 5


class Fault(NamedTuple):
    """A file of a stage that is not what the record says."""

    folder: str
    name: str
    what: str

    def __str__(self) -> str:
        return f"{terminal.plain(f'{self.folder}/{self.name}')} {self.what}"


def entries(run: RunDir, folder: str, names: Iterable[str]) -> dict[str, FileEntry]:
    """What the record says of a stage's files: their sizes, digests, and rows where they have any.

    Raises:
        RunDirError: one of them cannot be read.
    """
    names = list(names)
    return dict(zip(names, in_order(partial(_entry, run, folder), names), strict=True))


def _entry(run: RunDir, folder: str, name: str) -> FileEntry:
    size, digest = run.digest(folder, name)
    rows = run.num_rows(folder, name) if name.endswith(".parquet") else None
    return FileEntry(bytes=size, sha256=digest, rows=rows)


def lost(run: RunDir, folder: str, record: Record) -> list[Fault]:
    """Files that are gone, cut short or replaced by others of another size.

    A training's state is none of them: it is of use to the next epoch alone, which can do without.
    """
    sizes = run.sizes(folder)
    found: list[Fault] = []
    for name, entry in record.files.items():
        if is_state(name):
            continue
        if name not in sizes:
            found.append(Fault(folder, name, "is missing"))
        elif sizes[name] != entry.bytes:
            what = f"has {sizes[name]:,} bytes instead of {entry.bytes:,}: cut short, or replaced"
            found.append(Fault(folder, name, what))
    return found


def foreign(run: RunDir, folder: str, record: Record) -> list[Fault]:
    """Files in a stage's folder that the stage has not written."""
    names = sorted(run.sizes(folder).keys() - record.files.keys())
    if not any(map(is_state, record.files)):  # as earlier versions recorded: it is not loaded
        names = [name for name in names if not is_state(name)]
    return [Fault(folder, name, "is no file of this run: move it away") for name in names]


def altered(run: RunDir, folder: str, record: Record, names: Iterable[str]) -> list[Fault]:
    """Of some files, those whose bytes are not what was written; a file that is gone is `lost`.

    Raises:
        RunDirError: one of them cannot be read.
    """
    there = run.sizes(folder)
    names = [name for name in names if name in there]
    digests = in_order(lambda name: run.digest(folder, name)[1], names)
    return _others(folder, record, dict(zip(names, digests, strict=True)))


def altered_since(run: RunDir, folder: str, record: Record, names: Iterable[str]) -> list[Fault]:
    """`altered`, but a file of the path, size and times at which it was hashed before is the same.

    Raises:
        RunDirError: one of them cannot be read.
    """
    there = run.sizes(folder)
    paths = {name: run.path / folder / name for name in names if name in there}
    return _others(folder, record, run.hash_files(paths))


def _others(folder: str, record: Record, digests: Mapping[str, str]) -> list[Fault]:
    return [
        Fault(folder, name, "has other bytes than were written: it is damaged, or replaced")
        for name, digest in digests.items()
        if digest != record.files[name].sha256
    ]


def has_state(run: RunDir, folder: str) -> bool:
    """Whether every file is there of a state that the record of a training lists."""
    record = run.record(folder)
    names = list(filter(is_state, record.files)) if record else []
    return bool(names) and run.sizes(folder).keys() >= set(names)


def unchecked(record: Record) -> list[str]:
    """Names of the files that bear no checksums of their own."""
    return [name for name in record.files if not name.endswith(".parquet")]


def refuse_faults(
    run: RunDir, folder: str, digests: bool | Callable[[str], bool] = False
) -> Record:
    """The record of a stage that is about to be read.

    Args:
        run: the run directory.
        folder: of the stage.
        digests: hash what bears no checksums of its own, all of it or what a name is loaded of.

    Raises:
        RunDirError: the stage is not finished; or names the files that are missing, cut short,
            altered or foreign, and what to do.
    """
    record = run.record(folder)
    if record is None:
        raise RunDirError(
            f"{run.path / folder} is not finished. Run `poolscore run` with the same settings to "
            "finish it."
        )
    faults = [*lost(run, folder, record), *foreign(run, folder, record)]
    if digests and not faults:
        names = unchecked(record)
        loaded = filter(digests, names) if callable(digests) else names
        faults = altered_since(run, folder, record, loaded)
    if faults:
        raise RunDirError(in_words(run, faults))
    return record


def in_words(run: RunDir, faults: list[Fault]) -> str:
    """What is wrong with a run's files, and the ways out, on one screen."""
    lines = [f"{run.path} does not hold what was written there:"]
    lines += [f"  {fault}" for fault in faults[:MAX_LISTED]]
    if len(faults) > MAX_LISTED:
        lines.append(f"  and {len(faults) - MAX_LISTED:,} more")
    lines.append(
        "Nothing is read from it so. Copy what is missing or altered from where it is whole, or\n"
        "delete it and let `poolscore run` with the same settings make it again."
    )
    return "\n".join(lines)
