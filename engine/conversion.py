"""`.bin` checkpoints made into safetensors, once, by torch's `weights_only` loader.

A `.bin` file is a pickle, which runs whatever its author wrote. torch can read one so that only
tensors come of it and all else is refused; that is done here alone, when a person asks for it, and
in a process of its own. What is saved is loaded again and its loss compared.

``python -m engine.conversion CHECKPOINT FOLDER`` is that process.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

from engine import hub, model_files, model_reads, own_process, staging
from engine.errors import ModelError

PICKLE, PICKLES = "pytorch_model.bin", "pytorch_model.bin.index.json"
MAX_ERROR = 1e-5
"""Nats by which the saved model's loss may differ, both computed in float32."""
_OWN = ("config.json", PICKLE, PICKLES)
"""What is not copied as it is."""


def convert(what: str, revision: str | None = None, to: str | None = None) -> Path:
    """Make a folder with safetensors of a `.bin` checkpoint.

    Args:
        what: a folder with `pytorch_model.bin` (or shards and their index), the `.bin` file itself,
            or a hub id.
        revision: of the hub model: a commit, branch or tag; by default what is there now.
        to: the folder to make; by default the name with `-safetensors`, beside a folder, or in
            `models/` of a hub model.

    Returns:
        The folder that was made.

    Raises:
        ModelError: there is no such checkpoint, it holds more than tensors, it is no causal
            language model, or the folder is there already.
    """
    named = Path(what).expanduser()
    if named.is_file():
        if named.name != PICKLE:
            raise ModelError(
                f"{named}: a checkpoint's file is called {PICKLE}, beside config.json."
            )
        named = named.parent
    if named.is_dir():
        source = named.resolve()
        target = _target(to, source.with_name(f"{source.name}-safetensors"))
        _refuse_what_leads_out(source)
    elif what.endswith(".bin") or named.is_absolute() or what.startswith((".", "~")):
        raise ModelError(f"{what}: there is no such file or folder.")
    else:
        commit = revision if hub.is_commit(revision) else hub.commit_of("model", what, revision)
        target = _target(to, Path("models") / f"{what.split('/')[-1]}-safetensors")
        source = hub.download("model", what, commit, hub.PICKLED)
    _refuse_incomplete(source)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with staging.staged_folder(target, replace=False) as temporary:
            own_process.run("engine.conversion", source, temporary, what=f"converting {source}")
    except FileExistsError:
        raise _is_there(target) from None
    except OSError as error:
        raise ModelError(
            f"{target} cannot be written: {error.strerror or error}. Name another folder with --to."
        ) from None
    return target


def _target(to: str | None, default: Path) -> Path:
    """Where the folder is to be made: before anything is fetched, and where nothing is.

    Raises:
        ModelError: something is there.
    """
    target = (Path(to) if to else default).expanduser().absolute()
    if os.path.lexists(target):
        raise _is_there(target)
    return target


def _is_there(target: Path) -> ModelError:
    return ModelError(f"{target} is there already. Name another folder with --to, or remove it.")


def _refuse_what_leads_out(source: Path) -> None:
    found = model_reads.strays(source)
    if found:
        raise ModelError(f"{source} loads files from elsewhere: {found[0]}")


def _refuse_incomplete(source: Path) -> None:
    if not (source / "config.json").is_file():
        raise ModelError(f"{source} holds no config.json, so it is no model folder.")
    if model_reads.weights(source):
        raise ModelError(f"{source} holds safetensors already: name it as proxy.model.")
    pickles = _pickles(source)
    if not pickles:
        raise ModelError(f"{source} holds no {PICKLE}, so there is nothing to convert.")
    for path in pickles:
        if not path.is_file():
            raise ModelError(f"{source} lacks {path.name}, which its {PICKLES} names.")


def _pickles(source: Path) -> list[Path]:
    """The checkpoint's files, by transformers' order of looking."""
    if (source / PICKLE).is_file():
        return [source / PICKLE]
    try:
        told: Any = json.loads((source / PICKLES).read_bytes())
        names = {str(name) for name in told["weight_map"].values()}
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ModelError(f"{source / PICKLES} is damaged.") from None
    for name in names:
        if Path(name).name != name:
            raise ModelError(f"{source / PICKLES} names a file in another folder: {name!r}")
    return [source / name for name in sorted(names)]


# ── in the process of its own ────────────────────────────────────────────────────────────────────


def _convert(source_: str, folder_: str) -> str:
    import torch
    from transformers import AutoModelForCausalLM

    from engine import models

    source, folder = Path(source_), Path(folder_)
    dtype = _dtype_of(source)
    clean = folder / ".source"  # nothing but the settings and the weights, whatever else lies there
    clean.mkdir()
    for path in (*_pickles(source), *(source / name for name in ("config.json", PICKLES))):
        if path.is_file():
            (clean / path.name).symlink_to(path.resolve())
    _refuse_code(clean)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        clean,
        dtype=dtype,
        use_safetensors=False,
        weights_only=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    model, info = loaded
    for kind in ("missing_keys", "mismatched_keys"):
        if info[kind]:
            raise ModelError(f"{source}: {kind.replace('_', ' ')}: {sorted(info[kind])[:5]}")
    model.save_pretrained(folder)
    shutil.rmtree(clean)
    for path in sorted(source.iterdir()):
        copied = path.suffix in (".json", ".txt", ".model", ".jinja") and path.name not in _OWN
        if copied and path.is_file() and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    before = models.probe_loss(model.eval().to(torch.float32))
    del model, loaded
    after = models.probe_loss(models.load_language_model(folder, "float32", "cpu"))
    if not abs(after - before) <= MAX_ERROR:
        raise ModelError(
            f"the converted model's loss is {after:.5f}, the checkpoint's {before:.5f}"
        )
    return str(dtype).removeprefix("torch.")


def _dtype_of(source: Path) -> Any:
    """The precision that all the checkpoint's weights have, else float32. Reads every file, so that
    one that holds more than tensors is refused by its name.
    """
    import pickle

    import torch

    found: set[Any] = set()
    for path in _pickles(source):
        try:
            mapped = zipfile.is_zipfile(path)
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            # After pages of advice the loader says what it met: GLOBAL posix.mkdir.
            met = re.search(r"GLOBAL ([\w.]+)", str(error))
            asked = f"it asks for {met[1]}" if met else "torch's loader of tensors does not take it"
            raise ModelError(
                f"{path} is refused: it holds more than tensors, and could run code: {asked}.\n"
                "Nothing of it was run. Get the model from somebody you trust, as safetensors."
            ) from None
        if not isinstance(tensors, dict):
            raise ModelError(f"{path} holds no weights by name.")
        values = [value for value in tensors.values() if isinstance(value, torch.Tensor)]
        found.update(value.dtype for value in values if value.is_floating_point())
    return found.pop() if len(found) == 1 else torch.float32


def _refuse_code(folder: Path) -> None:
    found = model_files.dangers(folder, whole=False)
    if found:
        raise ModelError(f"the model wants code of its own, which is never run: {found[0]}")


if __name__ == "__main__":
    sys.exit(own_process.answer(_convert, sys.argv[1:]))
