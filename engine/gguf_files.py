"""GGUF files as proxies: dequantised once into safetensors, and a model folder like any other.

A GGUF is plain data, made for another program, which computes on the packed weights. Training needs
them as floats: transformers unpacks them, in a process of its own, into float32 safetensors beside
the tokenizer and the chat template that the file brings. The folder lies in the user's cache under
the file's digest and the versions of what made it.

``python -m engine.gguf_files FILE FOLDER`` is that process.
"""

from __future__ import annotations

import importlib.util
import math
import platform
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from engine import gguf_header, own_process, user_cache
from engine.errors import ModelError, how_to_install
from engine.gguf_header import Header

VERSION = 1
"""Part of the model's identity; raised when another folder is made of the same file."""
NEEDED = ("gguf", "accelerate")
MAX_ERROR = 1e-5
"""Nats by which the saved model may differ from the one that was unpacked."""
FLOAT32_BYTES = 4


def check(path: Path) -> Header:
    """What a GGUF holds, told before anything is unpacked.

    Raises:
        ModelError: it is damaged, or the packages that unpack it are not installed.
    """
    header = gguf_header.read(path)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            f"{path} is a GGUF file, and {' and '.join(missing)} must be installed to read it.\n"
            + how_to_install("gguf")
        )
    return header


def identity(digest: str) -> dict[str, Any]:
    """What a GGUF proxy is, for fingerprints: the file, and what makes a model of it.

    The packages are named by version, since another one may make other weights or tokens.
    """
    makers = {name: metadata.version(name) for name in ("gguf", "transformers")}
    return {"gguf": digest, "dequantised_by": {"version": VERSION, **makers}}


def folder_name(identity: Mapping[str, Any]) -> str:
    """Where in the user's cache the model of that identity lies."""
    makers = "-".join(str(version) for version in identity["dequantised_by"].values())
    return f"gguf/{identity['gguf'][:32]}-{makers}"


def unpacked(path: Path, meant: str | None = None) -> Path:
    """The model folder that a GGUF makes, in the user's cache.

    Args:
        path: of the file on this node.
        meant: `folder_name` of the run's own model, where that is known.

    Raises:
        ModelError: the file is no model that can be loaded, the run is of another file, or the
            cache cannot hold it.
    """
    header = check(path)
    name = folder_name(identity(user_cache.digest(path)))
    if meant is not None and name != meant:
        raise ModelError(
            f"{path} is another file on {platform.node()} than the one this run scores, or other "
            f"versions of\ngguf and transformers unpack it there: {name}, not {meant}.\n"
            "Give all nodes the same file and the same packages."
        )

    def make(folder: Path) -> None:
        own_process.run("engine.gguf_files", path, folder, what=f"unpacking {path}")

    return user_cache.folder(name, FLOAT32_BYTES * header.num_parameters, make)


def note(path: Path) -> str:
    """A sentence for people who read the scores."""
    header = gguf_header.read(path)
    return (
        f"The proxy was dequantised from a GGUF file of {header.num_bits:.1f} bits a weight: its "
        "scores are those of the rounded weights, not of the model they were made from."
    )


def _unpack(path_: str, folder_: str) -> str:
    """The whole work, in the process of its own."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    path, folder = Path(path_), Path(folder_)
    header = gguf_header.read(path)
    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    _check_size(header, where)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        **where,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
        trust_remote_code=False,
        output_loading_info=True,
    )
    model, info = loaded
    for kind in ("missing_keys", "mismatched_keys"):
        if info[kind]:
            raise ModelError(
                f"{path} does not hold the {header.architecture} model that it describes: "
                f"{kind.replace('_', ' ')}: {sorted(info[kind])[:5]}"
            )
    tokenizer = AutoTokenizer.from_pretrained(**where, trust_remote_code=False)
    fresh = _without_quantisation(model)
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _compare(model, folder)
    return f"{header.num_parameters:,} weights"


def _check_size(header: Header, where: dict[str, str]) -> None:
    """Refuse metadata of a larger model than the tensors make, before its memory is taken."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(**where, trust_remote_code=False)
    with torch.device("meta"):
        described = AutoModelForCausalLM.from_config(config)
    num = sum(parameter.numel() for parameter in described.parameters())
    held = {name: math.prod(shape) for name, shape in header.shapes.items()}
    if num > sum(held.values()):
        raise ModelError(
            f"{where['gguf_file']} describes a model of {num:,} weights, and holds "
            f"{header.num_parameters:,}."
        )
    # transformers passes over tensors that it has no place for, without a word.
    for name in _needless(header, config):
        held.pop(name, None)
    if num < sum(held.values()):
        frequencies = [name for name in held if name.startswith("rope_")]
        raise ModelError(
            f"{where['gguf_file']} holds {sum(held.values()) - num:,} weights more than the "
            f"{header.architecture} model that transformers makes of it"
            + (f" ({', '.join(frequencies)})" if frequencies else "")
            + ",\nso its scores would not be that model's. Take the model's own safetensors."
        )


def _needless(header: Header, config: Any) -> list[str]:
    """Tensors that scoring rightly does without."""
    # An output that these two tie to the input, and llama.cpp writes a second time.
    tied = ["output.weight"] if header.architecture in ("falcon", "bloom") else []
    layers = getattr(config.get_text_config(), "num_hidden_layers", 0)
    blocks = [(name, name.split(".")) for name in header.shapes if name.startswith("blk.")]
    # Layers behind the last one guess tokens further ahead.
    return tied + [name for name, parts in blocks if parts[1].isdigit() and int(parts[1]) >= layers]


def _without_quantisation(model: Any) -> Any:
    """The same weights in a model that can be saved: one that was loaded from a GGUF refuses."""
    import copy

    import torch

    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.dtype = torch.float32
    with torch.device("meta"):
        fresh = type(model)(config)
    fresh.load_state_dict(model.state_dict(), assign=True)
    fresh.tie_weights()
    packed = {name for name, value in fresh.state_dict().items() if value.dtype != torch.float32}
    if packed:
        raise ModelError(f"these weights stayed packed: {sorted(packed)[:5]}")
    return fresh


def _compare(model: Any, folder: Path) -> None:
    """Hold what was saved against what was unpacked."""
    from engine import models

    loaded = models.load_language_model(folder, "float32", "cpu")
    error = abs(models.probe_loss(loaded) - models.probe_loss(model.eval()))
    if not error <= MAX_ERROR:
        raise ModelError(f"the saved model's loss is {error:.2g} nats off the unpacked one's")


if __name__ == "__main__":
    sys.exit(own_process.answer(_unpack, sys.argv[1:]))
