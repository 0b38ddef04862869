"""YAML from anybody: its size is known before anything is built of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import yaml

from engine.errors import ConfigError

MAX_LETTERS, MAX_NODES, MAX_DEPTH = 4 * 2**20, 200_000, 40
"""Far more than any configuration has. Depth costs Python's stack; aliases multiply nodes."""
MAX_ERROR = 1000


def load(text: str) -> Any:
    """What the text says, by ``yaml.safe_load``.

    Raises:
        ValueError: it is not valid, or too large, too deep, or its aliases unfold to too much.
    """
    if len(text) > MAX_LETTERS:
        raise ValueError(f"it is {len(text):,} letters long, {MAX_LETTERS:,} at most are read")
    try:
        _refuse_too_much(text)
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # dates and numbers, among others
        said = str(error)
    except (LookupError, AttributeError, TypeError) as error:  # of what safe_load takes on trust
        said = f"a value is not of the kind that its !! tag names ({error})"
    else:
        return tree
    raise ValueError(said if len(said) <= MAX_ERROR else f"{said[:MAX_ERROR]}…")


def _refuse_too_much(text: str) -> None:
    """Count what would be built, each alias as what it stands for."""
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []
    num_nodes = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if any(event.anchor == anchor for anchor, _ in open_):
                raise ValueError(f"*{event.anchor} stands inside of what it is an alias for")
            num_nodes += sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, num_nodes))
            num_nodes += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            sizes[anchor or ""] = num_nodes - before
        elif isinstance(event, yaml.ScalarEvent):
            sizes[event.anchor or ""] = 1
            num_nodes += 1
        if len(open_) > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
        if num_nodes > MAX_NODES:
            raise ValueError(f"it unfolds to more than {MAX_NODES:,} values")


def refuse_unwritable(tree: object, where: str, key: str = "") -> None:
    """Refuse texts that no file name and no UTF-8 file can hold.

    Raises:
        ConfigError: names the setting.
    """
    if isinstance(tree, str):
        if "\0" in tree or any("\ud800" <= letter <= "\udfff" for letter in tree):
            raise ConfigError(
                f"wrong settings in {where}:\n  {key[:200]} = {tree[:80]!a}: holds a null byte, or "
                "bytes that are not UTF-8.\nRename the file, or mend the text."
            )
    elif isinstance(tree, Mapping):
        for name, value in cast("Mapping[Any, object]", tree).items():
            refuse_unwritable(value, where, f"{key}.{name}".removeprefix("."))
    elif isinstance(tree, Sequence):
        for value in cast("Sequence[object]", tree):
            refuse_unwritable(value, where, key)
