"""What of a model folder is read when the model is loaded: it is hashed, counted, and kept inside.

Weights need not lie at a folder's root: a shard index, `modules.json` or a setting in `config.json`
may name files anywhere, and loaders follow them. Found here from the files themselves, by the rules
of transformers and sentence-transformers, without loading anything.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from engine import hub
from engine.errors import ModelError, in_short

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
INDEXES = "*.safetensors.index.json"
ADAPTER = "adapter_config.json"
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
"""What torch's distributed checkpoints are called. Where there is one, transformers hands the
folder to torch, which reads every safetensors file in it."""
_NEVER_ENTERED = {".git", ".cache"}
"""Folders of the programs that fetch models."""
_MODULE_OPTIONS = tuple(
    f"{of}_{kind}"
    for of in ("model", "tokenizer", "processor", "config")
    for kind in ("args", "kwargs")
)
"""Sections of a sentence-transformers module's settings that are handed on to transformers."""
_DOCUMENTS = {
    ".md",
    ".rst",
    ".pdf",
    ".html",
    ".ipynb",
    ".log",
    ".csv",
    ".tsv",
    ".parquet",
    ".jsonl",
}
_PICTURES = {".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".mp4", ".wav"}
_OTHER_WEIGHTS = {".bin", ".h5", ".msgpack", ".ot", ".onnx", ".onnx_data", ".tflite", ".mlmodel"}
_OTHER = {".xml", ".gguf", ".npz", ".npy", ".zip", ".gz", ".tar", ".lock", ".metadata"}
UNREAD = frozenset(_DOCUMENTS | _PICTURES | _OTHER_WEIGHTS | _OTHER)
"""Suffixes of what no loader of ours opens: documents, pictures, other frameworks' weights. All
else is hashed, since tokenizers' files have many names."""


def strays(folder: Path) -> list[str]:
    """What leads out of a folder: a line for each link and each name, none where there is nothing.

    Links of the hub's own cache, from a snapshot to its blobs, are at home there.
    """
    return [*_links_out(folder), *_names_out(folder)]


def files(folder: Path) -> dict[str, Path]:
    """Every file that a loader could read, by its name relative to the folder."""
    found = set(weights(folder))  # whatever they are called
    for place in (folder, *_module_folders(folder)):
        found.update(path for path in _walk(place, hidden=False) if _may_be_read(path))
    return {path.relative_to(folder).as_posix(): path for path in sorted(found)}


def weights(folder: Path) -> list[Path]:
    """The safetensors that loading reads; a file that an index names may be missing."""
    found = set(_root_weights(folder))
    for module in _module_folders(folder):
        if module != folder:
            found.update(_root_weights(module))
            found.update(path for path in _walk(module, hidden=False) if _is_weights(path))
    return sorted(found)


def num_parameters(path: Path) -> int:
    """Numbers in all tensors of a safetensors file, from its header.

    Raises:
        ModelError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(
            f"{path} is no safetensors file that can be loaded: {in_short(error)}"
        ) from None


def _root_weights(folder: Path) -> list[Path]:
    """As `from_pretrained` chooses among the files of a folder."""
    named = _mapping(folder / "config.json").get("transformers_weights")
    listed = _listed(folder)
    if any(_DISTRIBUTED.fullmatch(path.name) for path in listed):
        chosen = [path for path in listed if _is_weights(path)]
    elif isinstance(named, str):
        chosen = [folder / named]
    elif (folder / WEIGHTS).is_file():
        chosen = [folder / WEIGHTS]
    elif (folder / INDEX).is_file():
        chosen = [folder / INDEX]
    else:
        chosen = []
    return [path for first in chosen for path in _shards(folder, first)]


def _shards(folder: Path, path: Path) -> list[Path]:
    """The files that an index names; of other files themselves."""
    if not path.name.endswith(".index.json"):
        return [path]
    return [folder / name for name in sorted(set(_index_names(path)))]


def _index_names(path: Path) -> Iterator[str]:
    map_ = _mapping(path).get("weight_map")
    if isinstance(map_, dict):
        yield from (name for name in map_.values() if isinstance(name, str))


def _module_folders(folder: Path) -> list[Path]:
    """Where the modules of a sentence-transformers model lie; none of another model."""
    told = _read(folder / "modules.json")
    modules = told if isinstance(told, list) else []
    paths = [module.get("path") for module in modules if isinstance(module, dict)]
    places = [folder / path for path in paths if isinstance(path, str) and not _leads_out(path)]
    return [place for place in places if place.is_dir()]


# ── what leads out ───────────────────────────────────────────────────────────────────────────────


def _links_out(folder: Path) -> Iterator[str]:
    homes = [folder.resolve(), *hub.blobs(folder.resolve(), "models")]
    links = {
        path
        for place in (folder, *_module_folders(folder))
        for path in _walk(place, hidden=True, with_folders=True)
        if path.is_symlink()
    }
    # What is named may lie behind a link in a folder that is not entered.
    named = (path for path in weights(folder) if not _leads_out(os.path.relpath(path, folder)))
    for path in sorted(links.union(_module_folders(folder), named)):
        target = path.resolve()
        if not any(target.is_relative_to(home) for home in homes):
            yield f"{path.relative_to(folder)}: a link to {target}"


def _names_out(folder: Path) -> Iterator[str]:
    places = (folder, *_module_folders(folder))
    paths = {path for place in places for path in _walk(place, hidden=True)}
    for path in sorted(path for path in paths if path.suffix == ".json"):
        for name, why in _names_in(path):
            yield f"{path.relative_to(folder)}: {why} {name!r}"


def _names_in(path: Path) -> Iterator[tuple[str, str]]:
    """Names in one JSON file that lead out of its folder, and what each is."""
    if path.match(INDEXES):
        for name in sorted(set(_index_names(path))):
            if _leads_out(name):
                yield name, "weights in"
            elif not name.endswith(".safetensors"):
                yield name, "weights that are no safetensors, in"
    elif path.name == "config.json":
        name = _mapping(path).get("transformers_weights")
        if isinstance(name, str) and _leads_out(name):
            yield name, "weights in"
    elif path.name == ADAPTER:
        base = _mapping(path).get("base_model_name_or_path")
        yield str(base), "an adapter for the model"
    elif path.name == "modules.json":
        told = _read(path)
        for module in told if isinstance(told, list) else ():
            name = module.get("path") if isinstance(module, dict) else None
            if isinstance(name, str) and _leads_out(name):
                yield name, "a module in"
    elif path.name == "router_config.json":
        types = _mapping(path).get("types")
        for name in types if isinstance(types, dict) else ():
            if _leads_out(name):
                yield name, "a module in"
    elif path.match("sentence_*_config.json"):
        yield from _options_out(_mapping(path))
    elif path.name == "tokenizer_config.json":
        yield from _vocabularies_out(path)


def _options_out(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a sentence-transformers module's options load from elsewhere."""
    if told.get("tokenizer_name_or_path"):
        yield str(told["tokenizer_name_or_path"]), "a tokenizer of its own in"
    for section in _MODULE_OPTIONS:
        options = told.get(section)
        for key, value in options.items() if isinstance(options, dict) else ():
            if value and (key == "adapter_kwargs" or key.endswith("_file")):
                yield str(value), f"{key} in"


def _vocabularies_out(path: Path) -> Iterator[tuple[str, str]]:
    """Files elsewhere that are there; old tokenizers name many of their author's machine."""
    for key, value in _mapping(path).items():
        if key.endswith("_file") and isinstance(value, str) and _leads_out(value):
            there = path.parent / value
            if there.is_file() and not there.resolve().is_relative_to(path.parent.resolve()):
                yield value, f"{key} in"
        if key == "fast_tokenizer_files" and isinstance(value, list):
            yield from ((str(name), f"{key} in") for name in value if _leads_out(str(name)))


def _leads_out(name: str) -> bool:
    """Whether a name in a folder's file stands for something outside of that folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts


# ── files ────────────────────────────────────────────────────────────────────────────────────────


def _walk(place: Path, hidden: bool, with_folders: bool = False) -> Iterator[Path]:
    """Every file at or below a place, in order; linked folders are not entered, nor read twice.

    Nor are those of programs that fetch models, unless one is the place.
    """
    if place.is_file():
        yield place
        return
    for folder, folders, names in os.walk(place):
        folders[:] = sorted(
            name
            for name in folders
            if name not in _NEVER_ENTERED and (hidden or not name.startswith("."))
        )
        inner = (*folders, *names) if with_folders else names
        for name in sorted(inner):
            path = Path(folder) / name
            if (hidden or not name.startswith(".")) and (with_folders or path.is_file()):
                yield path


def _listed(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


def _may_be_read(path: Path) -> bool:
    return path.suffix.lower() not in UNREAD and path.suffix != ""


def _is_weights(path: Path) -> bool:
    return path.suffix == ".safetensors"


def _mapping(path: Path) -> dict[str, Any]:
    told = _read(path)
    return told if isinstance(told, dict) else {}


def _read(path: Path) -> Any:
    """What a JSON file holds; None of a missing or broken one, which its loader tells."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
