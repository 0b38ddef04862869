"""A value that a setting names in each row, such as its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from engine.formats.values import Row, is_empty, json_text


@dataclass(frozen=True, slots=True)
class Found:
    """What was found under a name."""

    value: object
    path: tuple[str, ...]
    """The keys that lead to it, from the row inwards."""
    holders: tuple[Row, ...]
    """The objects on the way, as many: the row first, the one that holds the value last."""

    @property
    def text(self) -> str:
        """The value as text that fits a column: half a surrogate pair becomes a question mark."""
        value = self.value
        text = json_text(value) if isinstance(value, list | dict) else str(value)
        return text.encode("utf-8", "replace").decode()

    def left_of(self, unused: Sequence[str]) -> tuple[str, ...]:
        """The row's keys that play no part, when this value plays one.

        Of the objects on the way to it the other keys are named instead of their own.
        """
        left = [name for name in unused if name != self.path[0]]
        if len(left) == len(unused):
            return tuple(left)
        for depth, (key, holder) in enumerate(zip(self.path, self.holders, strict=True)):
            if depth:
                start = ".".join(self.path[:depth])
                others = [name for name in holder if name != key and not is_empty(holder[name])]
                left += [f"{start}.{name}" for name in others]
        return tuple(left)


def find(row: Row, name: str) -> Found | None:
    """The value under a name; None where there is none, or an empty one.

    ``meta.source`` is the key of that very name, else `source` in the object under `meta`.
    """
    value = row.get(name)
    if not is_empty(value):
        return Found(value, (name,), (row,))
    at = name.find(".")
    while at >= 0:
        inside = row.get(name[:at])
        if isinstance(inside, dict):
            found = find(cast("dict[str, object]", inside), name[at + 1 :])
            if found is not None:
                path = (name[:at], *found.path)
                return Found(found.value, path, (row, *found.holders))
        at = name.find(".", at + 1)
    return None
