"""Which files of a model folder could run code, found without loading any of them.

A pickle runs whatever its author wrote, and so does a folder that brings Python of its own. Only
safetensors, JSON and tokenizer files are ever needed here, so such files are refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")
MAYBE_PICKLES = (".bin",)
"""Some of them hold other things than pickles: their first bytes tell."""
PICKLE_STARTS = (b"PK", b"\x80")
"""Of torch's archives, and of plain pickles from protocol 2 on."""
CODE_KEYS = ("auto_map", "custom_pipelines")
OWN_MODULES = "sentence_transformers."


def dangers(folder: Path, whole: bool = True) -> list[str]:
    """What could run code: a line for each file, none where there is nothing.

    Args:
        folder: of a model.
        whole: look at every file; else only at the JSON files, which are read in any case.
    """
    found: list[str] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        why = _why(path) if whole else _code_named_in(path)
        if why:
            found.append(f"{path.relative_to(folder)}: {why}")
    return found


def _why(path: Path) -> str:
    if path.suffix == ".py":
        return "Python code"
    if path.suffix in PICKLES:
        return "a pickle"
    if path.suffix in MAYBE_PICKLES:
        with path.open("rb") as file:
            return "a pickle" if file.read(2).startswith(PICKLE_STARTS) else ""
    return _code_named_in(path)


def _code_named_in(path: Path) -> str:
    """Code that a JSON file asks for; broken JSON is told by whoever loads it."""
    if path.suffix != ".json" or path.name in ("tokenizer.json", "vocab.json"):
        return ""  # those two are large, and no Python reads them
    try:
        told = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return ""
    for key in _keys(told):
        if key in CODE_KEYS:
            return f"{key!r} asks for the model's own code"
    if path.name == "modules.json" and isinstance(told, list):
        for module in told:
            kind = str(module.get("type", "")) if isinstance(module, dict) else ""
            if not kind.startswith(OWN_MODULES):
                return f"a module of type {kind!r} is the model's own code"
    return ""


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)
