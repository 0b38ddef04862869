"""Folders that `datasets` wrote, and what lies beside the rows of a hub's data set."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, cast

from engine.errors import PoolError

STATE: Final = "state.json"
SPLITS: Final = "dataset_dict.json"
ABOUT: Final = frozenset(
    (
        *(STATE, SPLITS, "dataset_info.json", "dataset_infos.json"),
        *("metadata.json", "croissant.json", "config.json", "generation_config.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json"),
        *("adapter_config.json", "preprocessor_config.json", "package.json"),
    )
)
"""Files that tell about a data set or a model, and hold no rows."""
_STATE_BYTES: Final = 2**20
_RESULTS: Final = ("cache-", "indices", "tmp")
"""Beginnings of the names under which `datasets` keeps what it has computed."""


def of_rows(paths: Iterable[Path]) -> list[Path]:
    """Of files of known suffixes those to read, where only their folders were named.

    Arrow files are: those that the folder's state.json names, where there is one, and none that
    `datasets` keeps results in.

    Raises:
        PoolError: a folder that `datasets` wrote is not whole.
    """
    below: dict[Path, list[Path]] = {}
    for path in paths:
        if path.name.lower() not in ABOUT:
            below.setdefault(path.parent, []).append(path)
    return [path for folder, files in below.items() for path in _of_folder(folder, files)]


def _of_folder(folder: Path, paths: list[Path]) -> list[Path]:
    arrow = {path for path in paths if path.name.lower().endswith(".arrow")}
    if not arrow:
        return paths
    named = saved_files(folder)
    results = {path for path in arrow if path.name.lower().startswith(_RESULTS)}
    left_out = {path for path in arrow if path.name not in named} if named else results
    return [path for path in paths if path not in left_out]


def saved_files(folder: Path) -> tuple[str, ...]:
    """The files of a folder that `save_to_disk` wrote, by its state.json; none if it is no such.

    Raises:
        PoolError: a file is missing or outside the folder, or the rows are not those in the files.
    """
    path = folder / STATE
    state = _read(path)
    files = state.get("_data_files")
    if not isinstance(files, list):
        return ()
    _refuse_indices(path, state)
    names: list[str] = []
    for entry in cast(list[Any], files):
        name = entry.get("filename") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or Path(name).name != name or name == "..":
            fix = "save the data set again with save_to_disk, or name its .arrow files yourself"
            what = f"state.json names what is no file of its folder: {str(name)[:100]!r}"
            raise PoolError(what, str(path), fix)
        if not (folder / name).is_file():
            fix = "copy the folder again, as a whole"
            what = f"a file that state.json names is missing: {name!r}"
            raise PoolError(what, str(path), fix)
        names.append(name)
    return tuple(names)


def check_splits(folder: Path) -> None:
    """A folder of several saved data sets has each that its dataset_dict.json names.

    Raises:
        PoolError: one is missing.
    """
    splits = _read(folder / SPLITS).get("splits")
    for split in cast(list[Any], splits) if isinstance(splits, list) else []:
        if isinstance(split, str) and not (folder / split).is_dir():
            fix = "copy the folder again, as a whole, or name the folders that you mean"
            what = f"a split that {SPLITS} names is missing: {split[:100]!r}"
            raise PoolError(what, str(folder / SPLITS), fix)


def _read(path: Path) -> dict[str, Any]:
    """What a file about a data set holds, if it is one that `datasets` could have written."""
    try:
        with path.open("rb") as stream:
            state = json.loads(stream.read(_STATE_BYTES))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    except OSError as error:
        fix = "give it read permission, or name the files you mean"
        raise PoolError(f"{path.name} cannot be read: {error.strerror}", str(path), fix) from None
    return cast(dict[str, Any], state) if isinstance(state, dict) else {}


def _refuse_indices(path: Path, state: dict[str, Any]) -> None:
    """A data set that was shuffled or filtered may be saved as it was before, with the places of
    the rows that are left.
    """
    if any(value for key, value in state.items() if key.startswith("_indices")):
        raise PoolError(
            "a saved data set has its rows in another order or number than its files",
            str(path),
            "load it with datasets, and save it again: dataset.flatten_indices().save_to_disk(…)",
        )
